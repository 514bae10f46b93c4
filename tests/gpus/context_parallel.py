"""PyTorch's context_parallel on the cells of `bench --gpus`: one process for each GPU, no arguments.

Prints for each cell the median milliseconds of a causal call on all GPUs, or why there is none.
"""

import os
import statistics
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh

CELLS = [(64, 8, 32768), (32, 8, 32768), (32, 8, 8192)]
ROUNDS = 7


def measure(mesh, world, heads, kv_heads, rows):
    """Milliseconds of a call, as `bench --gpus` takes them: launches behind each other."""
    from torch.distributed.tensor.experimental import context_parallel
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def tensor(count):
        return torch.randn(1, count, rows * world, 128, dtype=torch.bfloat16, device="cuda")

    q, k, v = tensor(heads), tensor(kv_heads), tensor(kv_heads)
    count = 3 if rows > 16384 else 30
    times = []
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), torch.no_grad():
        with context_parallel(mesh, buffers=[q, k, v], buffer_seq_dims=[2, 2, 2]):
            def call():
                return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

            call()
            for _ in range(ROUNDS):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                call()
                start.record()
                for _ in range(count):
                    call()
                end.record()
                torch.cuda.synchronize()
                times.append(start.elapsed_time(end) / count)
    slowest = torch.tensor(times, device="cuda")
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return statistics.median(slowest.tolist())


def rank(number, world):
    """One process."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29511")
    torch.cuda.set_device(number)
    dist.init_process_group("nccl", rank=number, world_size=world)
    mesh = init_device_mesh("cuda", (world,))
    for heads, kv_heads, rows in CELLS:
        try:
            text = f"{measure(mesh, world, heads, kv_heads, rows):.3f}"
        except Exception as error:  # what a peer cannot do is said, and is no end
            text = f"none: {type(error).__name__}: {str(error)[:200]}"
        if number == 0:
            print(f"context_parallel {heads}/{kv_heads} {rows}: {text}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    gpus = torch.cuda.device_count()
    print(f"PyTorch {torch.__version__}, NCCL {torch.cuda.nccl.version()}", flush=True)
    mp.spawn(rank, (gpus,), gpus)
    sys.exit(0)
