"""The timing rule, the same for all: CUDA events around each call, the L2 cache overwritten before
it, the median. Implementations take turns in rounds of one call each."""
import random
import statistics

import torch

# Written before each call, several times the L2 cache.
FLUSH_BYTES = 256 << 20

# Fewest rounds, however long they take.
LEAST_ROUNDS = 5

WARM_UP_CALLS = 2

# The order of a round is drawn anew for each. Under its power cap the GPU gives a higher clock to
# the call that follows one of low power: on an H200 fixed neighbours shift ratios by 2 %.
ORDER_SEED = 3


class Timer:
    """Times calls on the current stream."""

    def __init__(self, rounds, cell_ms):
        """So many rounds, but in a cell no longer than `cell_ms`, if `LEAST_ROUNDS` fit in that."""
        self.rounds, self.cell_ms = rounds, cell_ms
        self.random = random.Random(ORDER_SEED)
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
        for _ in range(self.calls):
            for which in self.random.sample(range(len(calls)), len(calls)):
                context, call = calls[which]
                with context():
                    start, end, late = self.timed(call)
                taken[which].append((start, end))
                self.late[which] += late
        torch.cuda.synchronize()
        medians = [statistics.median(a.elapsed_time(b) for a, b in pairs) for pairs in taken]
        for pairs in taken:
            self.pool.extend(pairs)
        return medians

    def count(self, estimates):
        affordable = int(self.cell_ms / sum(estimates))
        return max(min(self.rounds, affordable), LEAST_ROUNDS)

    def estimate_ms(self, context, call):
        start, end = self.events()
        with context():
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
