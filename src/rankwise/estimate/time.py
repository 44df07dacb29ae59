"""FLOPs from the trace, and seconds by rate. A multiply-add counts as two operations."""

from rankwise.estimate.memory import family
from rankwise.records import DeviceFacts, FlopsByPhase, Setup, TimeEstimate, Trace

# Share of the measured 2048 x 2048 matmul rate that a training step reaches with long rows; short rows fill the
# cores less, by T / (T + 50) for T tokens in one forward pass. Seen on two idle CPU cores at 806 GFLOP/s in bf16:
# LoRA 0.19 at 95 tokens and 0.26 at 512, full 0.18 and QLoRA, whose weights are unpacked in each pass, 0.15 at 95
# (docs/log.md).
CPU_EFFICIENCY = {"full": 0.275, "adapter": 0.29, "quantised": 0.23}
SHORT_ROWS = 50
# Model FLOPs utilisation against a datasheet's peak: 0.30 to 0.45 is usual in published runs; QLoRA 2 to 22 %
# slower.
GPU_EFFICIENCY = {"full": 0.35, "adapter": 0.35, "quantised": 0.30}
# AdamW is bound by memory: parameters updated per second on two cores (docs/log.md: 134.5 M in 0.24 s).
CPU_PARAMS_PER_SECOND = 5.6e8
# Two moments, their corrections, the root, the division and the update: 12 operations a parameter.
ADAMW_OPERATIONS = 12.0
INTERVAL = (0.5, 2.0)


def step_flops(trace: Trace, setup: Setup, mean_length: float) -> FlopsByPhase:
    """Of one optimizer step on one device, for rows of `mean_length` tokens.

    The trace counts a micro-batch of rows of `setup.max_length`; shorter rows cost in proportion. That overstates the
    attention products, which grow with the square: by less than 4 h T / (24 h^2), the share that they have at all.
    """
    micro_batches = setup.gradient_accumulation_steps * mean_length / setup.max_length
    return FlopsByPhase(
        forward=trace.flops["forward"] * micro_batches,
        backward=trace.flops["backward"] * micro_batches,
        optimizer=ADAMW_OPERATIONS * trace.trainable_params,
    )


def matmul_rate(device: DeviceFacts, setup: Setup) -> float | None:
    """FLOP/s of the step's arithmetic; None where it is not known. Tensor cores run fp16 as fast as bf16."""
    arithmetic = setup.autocast or setup.dtype
    if arithmetic == "fp16":
        return device.matmul_flops.get("bf16") if device.kind == "gpu" else None
    return device.matmul_flops.get(arithmetic)


def _efficiency(device: DeviceFacts, method: str, tokens: float) -> float:
    kind = family(method)
    if device.kind == "gpu":
        return GPU_EFFICIENCY[kind]
    return CPU_EFFICIENCY[kind] * tokens / (tokens + SHORT_ROWS)


def estimate_time(
    trace: Trace, setup: Setup, device: DeviceFacts, *, mean_length: float, max_steps: int | None
) -> TimeEstimate:
    """Seconds of one step, and of `max_steps`; None where the rate or the number of steps is not known."""
    flops = step_flops(trace, setup, mean_length)
    at_once = mean_length * setup.per_device_train_batch_size
    tokens = at_once * setup.gradient_accumulation_steps
    rate, step = matmul_rate(device, setup), None
    if rate is not None:
        step = (flops.forward + flops.backward) / (rate * _efficiency(device, setup.method, at_once))
        if device.kind == "cpu":
            step += trace.trainable_params / CPU_PARAMS_PER_SECOND
    seconds = step * max_steps if step is not None and max_steps is not None else None
    return TimeEstimate(
        flops_per_token=(flops.forward + flops.backward) / tokens,
        flops=flops,
        tokens_per_second=tokens * setup.world_size / step if step is not None else None,
        step_seconds=step,
        train_seconds=seconds,
        interval=(INTERVAL[0] * seconds, INTERVAL[1] * seconds) if seconds is not None else None,
    )
