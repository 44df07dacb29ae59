"""Seconds of a step on a CPU: FLOPs by the measured matmul rate, and AdamW by its memory traffic.

Shares of the measured 2048 x 2048 matmul rate that a training step reaches with long rows; short rows fill the cores
less, by T / (T + 50) for T = rows x mean length tokens in one forward pass. From eight runs of ten steps on two idle
cores at 803 GFLOP/s in bf16, rows of 93 and 200 tokens, packed and not, each within 21 % of its share (docs/log.md).
"""

from rankwise.estimate.memory import family
from rankwise.records import DeviceFacts, Setup, Trace

EFFICIENCY = {"full": 0.47, "adapter": 0.36, "quantised": 0.38}
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
