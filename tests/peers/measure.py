"""The timing rule, the same for all: CUDA events around each call, the L2 cache overwritten before
it, at least 20 calls, the median; implementations take turns in short rounds."""
import statistics

import torch

# Written before each call, several times the L2 cache.
FLUSH_BYTES = 256 << 20

# Calls of one implementation before the next has its turn.
ROUND_CALLS = 5

MOST_CALLS = 100
WARM_UP_CALLS = 3


class Timer:
    """Times calls on the current stream."""

    def __init__(self, least_calls, call_ms, cell_ms):
        """Per implementation at least `least_calls` calls and `call_ms` of calls, up to 100; but
        all implementations together no longer than `cell_ms`, if a round each fits in that."""
        self.least_calls, self.call_ms, self.cell_ms = least_calls, call_ms, cell_ms
        self.flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")
        self.pool = []
        # Calls of each implementation in the last measurement, and how many of them the GPU may
        # have waited for: such times hold some of the host's.
        self.calls = 0
        self.late = []

    def medians_ms(self, calls):
        """The median time of each of `calls`, which are pairs (context, call)."""
        estimates = [self.estimate_ms(*pair) for pair in calls]
        self.calls = self.count(estimates)
        taken = [[] for _ in calls]
        self.late = [0] * len(calls)
        self.queue_ahead()
        for start in range(0, self.calls, ROUND_CALLS):
            size = min(ROUND_CALLS, self.calls - start)
            turn = start // ROUND_CALLS % len(calls)
            order = [*range(turn, len(calls)), *range(turn)]
            for which in order:
                context, call = calls[which]
                with context():
                    for _ in range(size):
                        start_event, end_event, late = self.timed(call)
                        taken[which].append((start_event, end_event))
                        self.late[which] += late
        torch.cuda.synchronize()
        medians = [statistics.median(a.elapsed_time(b) for a, b in pairs) for pairs in taken]
        for pairs in taken:
            self.pool.extend(pairs)
        return medians

    def count(self, estimates):
        wanted = max(self.least_calls, min(MOST_CALLS, int(self.call_ms / max(estimates))))
        affordable = int(self.cell_ms / sum(estimates))
        return max(min(wanted, affordable), ROUND_CALLS)

    def estimate_ms(self, context, call):
        start, end = self.events()
        with context():
            for _ in range(WARM_UP_CALLS):
                call()
            start.record()
            for _ in range(WARM_UP_CALLS):
                call()
            end.record()
        torch.cuda.synchronize()
        ms = start.elapsed_time(end) / WARM_UP_CALLS
        self.pool.append((start, end))
        return max(ms, 1e-3)

    def queue_ahead(self):
        """Gives the GPU work, so that the host is ahead of it from the first timed call on."""
        for _ in range(8):
            self.flush.zero_()

    def timed(self, call):
        start, end = self.events()
        self.flush.zero_()
        start.record()
        call()
        # The GPU is past the flush already: it may have been idle when the call came.
        late = start.query()
        end.record()
        return start, end, late

    def events(self):
        if self.pool:
            return self.pool.pop()
        return tuple(torch.cuda.Event(enable_timing=True) for _ in range(2))
