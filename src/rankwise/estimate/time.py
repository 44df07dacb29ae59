"""FLOPs by formula and seconds by rate. A multiply-add counts as two operations."""

from rankwise.methods import Method
from rankwise.records import Facts, FlopsByPhase, TimeEstimate, TrainConfig

# Share of the measured 2048 x 2048 matmul rate that a training step reaches with long rows; short rows fill the
# cores less, by T / (T + 50) for T tokens in one forward pass. Seen on two idle CPU cores at 806 GFLOP/s in bf16:
# LoRA 0.19 at 95 tokens and 0.26 at 512, full 0.18 and QLoRA, whose weights are unpacked in each pass, 0.15 at 95
# (docs/log.md).
CPU_EFFICIENCY = {"full": 0.275, "lora": 0.29, "qlora": 0.23}
SHORT_ROWS = 50
# Model FLOPs utilisation against a datasheet's peak: 0.30 to 0.45 is usual in published runs; QLoRA 2 to 22 %
# slower.
GPU_EFFICIENCY = {"full": 0.35, "lora": 0.35, "qlora": 0.30}
# AdamW is bound by memory: parameters updated per second on two cores (docs/log.md: 134.5 M in 0.24 s).
CPU_PARAMS_PER_SECOND = 5.6e8
INTERVAL = (0.5, 2.0)


def flops_per_token(facts: Facts, config: TrainConfig, method: Method, trainable: int) -> tuple[float, float]:
    """(forward, backward) FLOPs per token of training data.

    Forward: 2 per linear weight, 4 T h per block for attention, 2 h V for the head on supervised tokens only.
    Backward: the same once more for the gradient of the inputs, and once more for each *trained* weight (Hu et al.
    2021; Thinking Machines 2025: LoRA's step costs about two thirds of a full one). Checkpointing repeats the
    forward pass.
    """
    model, data = facts.model, facts.data
    head = 2 * model.hidden_size * model.vocab_size * data.supervised_tokens / max(data.tokens, 1)
    attention = 4 * data.mean_length * model.hidden_size * model.num_hidden_layers
    adapter = 2 * trainable if method.trains == "adapter" else 0
    forward = 2 * model.linear_params + attention + head + adapter
    trained = forward if method.trains == "weights" else adapter
    backward = forward + trained + (forward if config.gradient_checkpointing else 0)
    return forward, backward


def _efficiency(facts: Facts, config: TrainConfig, method: Method) -> float:
    if facts.device.kind == "gpu":
        return GPU_EFFICIENCY[method.name]
    tokens = facts.data.mean_length * config.per_device_train_batch_size
    return CPU_EFFICIENCY[method.name] * tokens / (tokens + SHORT_ROWS)


def estimate_time(facts: Facts, config: TrainConfig, method: Method, trainable: int) -> TimeEstimate:
    forward, backward = flops_per_token(facts, config, method, trainable)
    device = facts.device
    tokens = facts.data.mean_length * config.effective_batch
    optimizer = 12.0 * trainable
    flops = FlopsByPhase(forward=forward * tokens, backward=backward * tokens, optimizer=optimizer)
    arithmetic = "bf16" if "bf16" in (config.dtype, config.autocast) else "fp32"
    rate = device.matmul_flops.get(arithmetic)
    if rate is None:
        return TimeEstimate(
            flops_per_token=forward + backward,
            flops=flops,
            tokens_per_second=None,
            step_seconds=None,
            train_seconds=None,
            interval=None,
        )
    step = (flops.forward + flops.backward) / (rate * _efficiency(facts, config, method))
    if device.kind == "cpu":
        step += trainable / CPU_PARAMS_PER_SECOND
    seconds = step * config.max_steps
    return TimeEstimate(
        flops_per_token=forward + backward,
        flops=flops,
        tokens_per_second=tokens * device.count / step,
        step_seconds=step,
        train_seconds=seconds,
        interval=(INTERVAL[0] * seconds, INTERVAL[1] * seconds),
    )
