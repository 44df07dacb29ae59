"""`python -m rankwise.model.matmul [cpu|cuda]`: how fast this device multiplies matrices, as one line of JSON.

{"bf16": FLOP/s, "fp32": FLOP/s, "threads": n}; a multiply-add counts as 2. About 2 seconds on a CPU.
"""

import json
import sys
import time

import torch

SIZE = 2048
FLOPS = 2 * SIZE**3
SECONDS = 0.5  # per dtype
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def rate(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of a 2048 x 2048 matmul, fastest of at least 3 after warm-up: what else runs on the machine only slows
    it.
    """
    a, b = (torch.randn(SIZE, SIZE, device=device).to(dtype) for _ in range(2))
    _seconds(a, b)
    times: list[float] = []
    while len(times) < 3 or (sum(times) < SECONDS and len(times) < 50):
        times.append(_seconds(a, b))
    return FLOPS / min(times)


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
    found: dict[str, float] = {name: rate(dtype, where) for name, dtype in DTYPES.items()}
    sys.stdout.write(json.dumps({**found, "threads": torch.get_num_threads()}) + "\n")
