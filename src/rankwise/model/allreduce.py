"""`python -m torch.distributed.run … -m rankwise.model.allreduce nccl|gloo`: do the processes here reach each other?

Each of n ranks gives its number plus one; the sum must be n (n + 1) / 2 on all of them. The first writes one line of
JSON: {"world_size": n, "bytes_per_second": of one all-reduce of 64 MiB, bytes of the tensor over its seconds}.
"""

import json
import sys
import time

import torch
import torch.distributed as dist

NUMBERS = 1 << 24  # 64 MiB of fp32
REPEATS = 3


def check(backend: str) -> dict[str, float]:
    """Raises RuntimeError when a rank has another sum than it should."""
    dist.init_process_group(backend)
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    times = []
    for _ in range(REPEATS):
        numbers = torch.full((NUMBERS,), float(rank + 1), device=device)
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(numbers)
        expected, found = world * (world + 1) / 2, (float(numbers.min()), float(numbers.max()))
        times.append(time.perf_counter() - began)
        if found != (expected, expected):
            raise RuntimeError(f"rank {rank}: the sum is {found}, expected {expected}")
    dist.destroy_process_group()
    return {"rank": rank, "world_size": world, "bytes_per_second": 4 * NUMBERS / min(times)}


if __name__ == "__main__":
    said = check(sys.argv[1])
    if said.pop("rank") == 0:
        sys.stdout.write(json.dumps(said) + "\n")
