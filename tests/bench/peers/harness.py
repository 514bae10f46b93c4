"""Times Fulgurite and its peers in one process, taking turns, on the same tensors; or compares
their errors, if the job has problems in place of cells.

Started by `fulgurite-check bench --peers-dir`, which writes the job to standard input as one line
of JSON and reads one JSON object per line from standard output as things happen. Anything that a
library prints goes to standard error.
"""
import json
import os
import sys
import time

import torch

import accuracy
import eight_bits
import gradients
import implementations
import reference
from measure import Timer
from sensors import Sensors

# All who can be measured.
IMPLEMENTATIONS = implementations.ALL + eight_bits.ALL

# Cells between two measurements of cuBLAS, and the size of its square matrices.
CUBLAS_INTERVAL = 12
CUBLAS_SIZE = 8192


class Output:
    """Events for the program that started this one."""

    def __init__(self):
        self.stream = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def event(self, event, **fields):
        print(json.dumps({"event": event, **fields}), file=self.stream, flush=True)


def reason(error):
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def versions():
    """Versions of what all share, by name; what cannot be asked is left out."""
    found = {"python": sys.version.split()[0]}
    for name, ask in (("cuda", lambda: torch.version.cuda),
                      ("cudnn", torch.backends.cudnn.version)):
        try:
            found[name] = str(ask())
        except Exception:  # it only informs
            pass
    return found


def is_lost():
    """Whether the CUDA context can do nothing any more."""
    try:
        torch.cuda.synchronize()
        torch.zeros(1, device="cuda").item()
        return False
    except RuntimeError:
        return True


def tensors(cell):
    """q, k, v in [batch, rows, heads, head_dim], normal, from a fixed seed."""
    dtype = implementations.DTYPES[cell["dtype"]]
    generator = torch.Generator(device="cuda").manual_seed(1)

    def normal(rows, heads):
        shape = (cell["batch"], rows, heads, cell["head_dim"])
        return torch.randn(shape, device="cuda", dtype=dtype, generator=generator)

    q = normal(cell["q_len"], cell["heads"])
    k, v = (normal(cell["kv_len"], cell["heads_kv"]) for _ in range(2))
    if cell["kind"] == "fwd":
        return q, k, v
    return q, k, v, normal(cell["q_len"], cell["heads"])


def checked(peers, cell, index, output):
    """The calls of those peers that take the cell and compute it right: (peer, call, error)."""
    given = tensors(cell)
    is_forward = cell["kind"] == "fwd"
    wanted = (reference if is_forward else gradients).Reference(*given, cell["causal"])
    ready = []
    for peer in peers:
        if cell["dtype"] not in peer.dtypes:
            continue
        named = {"cell": index, "peer": peer.name}
        try:
            with peer.context():
                call = peer.prepare(cell, *given) if is_forward \
                    else gradients.call_of(peer, cell, *given)
                result = call()
            torch.cuda.synchronize()
            decoded = peer.decoded(result) if is_forward else result
            rms, complaint = wanted.judge(decoded, peer.scheme(cell["dtype"]))
        except Exception as error:  # whatever a peer raises, the others go on
            output.event("skip", **named, reason=reason(error))
            if is_lost():
                raise
            continue
        if complaint is None:
            ready.append((peer, call, rms))
        else:
            output.event("wrong", **named, reason=complaint)
    return ready


def run_cell(job, peers, index, timer, sensors, output):
    cell = job["cells"][index]
    ready = checked(peers, cell, index, output)
    if not ready:
        return
    start = time.monotonic()
    times = timer.medians_ms([(peer.context, call) for peer, call, _ in ready])
    clock_mhz, power_watts = sensors.mean_since(start)
    for (peer, _, rms), ms, late in zip(ready, times, timer.late):
        output.event("time", cell=index, peer=peer.name, options=peer.options(cell["dtype"]), ms=ms,
                     calls=timer.calls, late=late, error=rms, clock_mhz=clock_mhz,
                     power_watts=power_watts)


class Cublas:
    """cuBLAS on large square matrices of random bf16: what the GPU does for plain products, under
    the same power cap."""

    def __init__(self, timer, output):
        self.timer, self.output = timer, output
        shape = (CUBLAS_SIZE, CUBLAS_SIZE)
        generator = torch.Generator(device="cuda").manual_seed(2)
        self.a, self.b, self.c = (
            torch.randn(shape, device="cuda", dtype=torch.bfloat16, generator=generator)
            for _ in range(3))

    def measure(self):
        call = lambda: torch.matmul(self.a, self.b, out=self.c)  # noqa: E731
        ms = self.timer.medians_ms([(implementations.no_context, call)])[0]
        self.output.event("cublas", size=CUBLAS_SIZE, ms=ms)


def loaded(job, wants, output):
    """Those whose class `wants`, as far as they are there."""
    peers = []
    for make in filter(wants, IMPLEMENTATIONS):
        try:
            peers.append(make(job))
            output.event("origin", peer=make.name, origin=str(peers[-1].origin))
        except Exception as error:  # a peer that is not there is no failure
            output.event("absent", peer=make.name, reason=reason(error))
    return peers


def run_cells(job, deadline, output):
    """Times the job's cells."""
    dtypes = {cell["dtype"] for cell in job["cells"]}
    peers = loaded(job, lambda made: dtypes.intersection(made.dtypes), output)
    timer = Timer(job["rounds"], job["cell_ms"])
    sensors = Sensors()
    try:
        cublas = Cublas(timer, output)
        for index in range(len(job["cells"])):
            if index % CUBLAS_INTERVAL == 0:
                cublas.measure()
            if time.monotonic() > deadline:
                output.event("note", text=f"the budget is spent after {index} cells")
                break
            run_cell(job, peers, index, timer, sensors, output)
        cublas.measure()
    finally:
        sensors.stop()
    ranges = sensors.ranges()
    if ranges is not None:
        output.event("sensors", **ranges)


def run_problem(index, problem, peers, output):
    for peer, scheme, found in accuracy.errors(problem, peers):
        named = {"cell": index, "peer": peer.name}
        if isinstance(found, Exception):
            output.event("skip", **named, reason=f"{scheme}: {reason(found)}")
            if is_lost():
                raise found
        else:
            output.event("error", **named, scheme=scheme, rmse=found[0], relative=found[1])


def run_problems(job, deadline, output):
    """Compares errors on the job's problems."""
    peers = loaded(job, lambda made: made.name in accuracy.COMPARED, output)
    for index, problem in enumerate(job["problems"]):
        if time.monotonic() > deadline:
            output.event("note", text=f"the budget is spent after {index} problems")
            break
        try:
            run_problem(index, problem, peers, output)
        except Exception as error:  # too little memory, say: other problems need less
            output.event("note", text=f"{problem['data']}: {reason(error)}")
            if is_lost():
                raise


def run(job, output):
    deadline = time.monotonic() + job["budget_seconds"]
    torch.cuda.set_device(job["device"])
    torch.set_grad_enabled(False)
    output.event("gpu", name=torch.cuda.get_device_name(), torch=torch.__version__,
                 versions=versions())
    if job["cells"]:
        run_cells(job, deadline, output)
    if job["problems"]:
        run_problems(job, deadline, output)
    output.event("end")


def main():
    output = Output()
    try:
        if not torch.cuda.is_available():
            raise RuntimeError("PyTorch finds no CUDA device")
        run(json.loads(sys.stdin.readline()), output)
    except Exception as error:  # the last word of this process
        output.event("failed", reason=reason(error))
        raise
    finally:
        # Some CUDA libraries crash while the interpreter ends.
        sys.stderr.flush()


if __name__ == "__main__":
    main()
