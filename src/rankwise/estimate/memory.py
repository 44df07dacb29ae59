"""Peak memory of training, in bytes on one device: the trace of the real step, what the process takes beside it, and
how far measured peaks lie from such predictions (residuals.toml).
"""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from rankwise.methods import tuner
from rankwise.records import DeviceFacts, MemoryEstimate, Setup, Trace
from rankwise.records.ledger import Family

# What a process on a CPU needs beside tensors: 0.46 GB of Python with torch, transformers and peft imported, and up to
# 0.55 GB of oneDNN's prepared kernels, of which it keeps 1,024: each length of a batch has its own (docs/log.md).
PROCESS_BYTES = 1_000_000_000
# What malloc keeps of freed activations and logits for later ones, which are seldom of the same sizes: as much again as
# was in use at once (0.1 to 1.6 times that in nine runs, docs/log.md).
KEPT_BY_MALLOC = 1.0
# CUDA context of a GPU that devices.toml does not know: the middle of those that it knows (0.14 to 0.71 GB).
UNKNOWN_CONTEXT = 500_000_000
# NCCL's buffers and channels in each of several ranks, 300 to 600 MiB (observe/devices.toml).
NCCL_BYTES = 470_000_000


def _kept_by_malloc(trace: Trace, device: DeviceFacts) -> int:
    """Bytes; PyTorch's caching allocator on a GPU is replayed instead."""
    passing = trace.buckets.activations + trace.buckets.logits + trace.buckets.workspace
    return round(KEPT_BY_MALLOC * passing) if device.kind == "cpu" else 0


def device_name(device: DeviceFacts) -> str:
    """How a Setup names it: `cpu`, `gpu-8.0`, or `gpu` where no compute capability is known."""
    if device.kind == "cpu":
        return "cpu"
    return "gpu" if device.compute_capability is None else f"gpu-{device.compute_capability:.1f}"


def process_bytes(device: DeviceFacts, world_size: int) -> int:
    """Bytes of the device that a training process takes beside what its allocator reserves."""
    if device.kind == "cpu":
        return PROCESS_BYTES
    context = device.context_bytes[1] if device.context_bytes else UNKNOWN_CONTEXT
    return context + (NCCL_BYTES if world_size > 1 else 0)


def estimate_memory(trace: Trace, setup: Setup, device: DeviceFacts) -> MemoryEstimate:
    """The trace on this device: `peak_device` is what nvidia-smi (CPU: resident memory) would show."""
    peak = trace.peak_reserved + process_bytes(device, setup.world_size) + _kept_by_malloc(trace, device)
    residual = residual_of(device.kind, setup.method, parallel=setup.parallel)
    interval = (peak * (1 + residual["low"]), peak * (1 + residual["high"]))
    return MemoryEstimate(
        **trace.buckets.model_dump(),
        peak_allocated=trace.peak_allocated,
        peak_reserved=trace.peak_reserved if device.kind == "gpu" else None,
        peak_device=peak,
        peak_phase=trace.peak_phase,
        peak_op=trace.peak_op,
        eval_peak=trace.eval_peak,
        save_peak=trace.save_peak,
        merge_peak=trace.merge_peak,
        capacity=device.memory_bytes,
        interval=interval,
        fits=None if device.memory_bytes is None else interval[1] <= device.memory_bytes,
    )


def family(method: str, parallel: str = "none") -> Family:
    """sharded (ZeRO, FSDP); on whole models full, adapter (over a base as it was loaded) or quantised."""
    if parallel not in ("none", "ddp"):
        return "sharded"
    if method == "full":
        return "full"
    return "adapter" if tuner(method).base == "as-loaded" else "quantised"


def residual_of(kind: str, method: str, statistic: str = "device", parallel: str = "none") -> dict[str, Any]:
    """The row of residuals.toml for a kind of device, a method and a statistic (allocated, reserved, device)."""
    of = [r for r in _residuals() if r["device"] == kind and r["statistic"] == statistic]
    rows = [r for r in of if r["family"] in (family(method, parallel), "any")]
    return min(rows, key=lambda r: r["family"] == "any")


@cache
def _residuals() -> tuple[dict[str, Any], ...]:
    text = files("rankwise.estimate").joinpath("residuals.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["residual"])
