"""`python -m rankwise.model.matmul [cpu|cuda]`: how fast this device multiplies matrices, as one line of JSON.

{"bf16": FLOP/s, "fp32": FLOP/s, "threads": n, "undisturbed": share}; a multiply-add counts as 2. About 2 seconds on a
CPU. `undisturbed`: processor time that the threads were given, over what they asked for; 1 on a GPU.
"""

import json
import sys
import time
from typing import NamedTuple

import torch

SIZE = 2048
FLOPS = 2 * SIZE**3
SECONDS = 0.5  # per dtype
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class Measured(NamedTuple):
    """FLOP/s, and the share of the processor time it asked for that it was given (1 on a GPU)."""

    flops: float
    undisturbed: float


def rate(dtype: torch.dtype, device: str) -> Measured:
    """Of a 2048 x 2048 matmul, fastest of at least 3 after warm-up: what else runs on the machine only slows it."""
    a, b = (torch.randn(SIZE, SIZE, device=device).to(dtype) for _ in range(2))
    _seconds(a, b)
    times: list[float] = []
    began, used = time.perf_counter(), time.process_time()
    while len(times) < 3 or (sum(times) < SECONDS and len(times) < 50):
        times.append(_seconds(a, b))
    asked, given = (time.perf_counter() - began) * torch.get_num_threads(), time.process_time() - used
    return Measured(FLOPS / min(times), 1.0 if a.is_cuda else min(1.0, given / asked))


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    repeats = 20 if a.is_cuda else 1  # one launch alone is shorter than what the clock resolves well
    _wait(a)
    begin = time.perf_counter()
    for _ in range(repeats):
        a @ b
    _wait(a)
    return (time.perf_counter() - begin) / repeats


def _wait(a: torch.Tensor) -> None:
    if a.is_cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    where = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    found = {name: rate(dtype, where) for name, dtype in DTYPES.items()}
    flops = {name: measured.flops for name, measured in found.items()}
    share = min(measured.undisturbed for measured in found.values())
    sys.stdout.write(json.dumps({**flops, "threads": torch.get_num_threads(), "undisturbed": share}) + "\n")
