"""Seconds of a step on a CPU: FLOPs by the measured matmul rate, and AdamW by its memory traffic.

Shares of the measured 2048 x 2048 matmul rate that a training step reaches with long rows; short rows fill the cores
less, by T / (T + 50) for T tokens in one forward pass. Seen on two idle CPU cores at 806 GFLOP/s in bf16: LoRA 0.19 at
95 tokens and 0.26 at 512, full 0.18 and QLoRA, whose weights are unpacked in each pass, 0.15 at 95 (docs/log.md).
"""

from rankwise.estimate.memory import family
from rankwise.records import DeviceFacts, Setup, Trace

EFFICIENCY = {"full": 0.275, "adapter": 0.29, "quantised": 0.23}
SHORT_ROWS = 50
# AdamW is bound by memory: parameters updated per second on two cores (docs/log.md: 134.5 M in 0.24 s).
PARAMS_PER_SECOND = 5.6e8


def phase_seconds(flops: float, setup: Setup, device: DeviceFacts, tokens: float) -> float | None:
    """One forward or backward pass over `tokens` tokens; None where no rate of the arithmetic was measured."""
    rate = device.matmul_flops.get(setup.autocast or setup.dtype)
    if rate is None:
        return None
    return flops / (rate * EFFICIENCY[family(setup.method)] * tokens / (tokens + SHORT_ROWS))


def update_seconds(trace: Trace) -> float:
    """One optimizer step."""
    return trace.trainable_params / PARAMS_PER_SECOND
