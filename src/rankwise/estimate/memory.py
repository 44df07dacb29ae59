"""Peak memory of training by formula, in bytes on one device. It is no trace of the real step: the
interval says how far it can be trusted.
"""

from rankwise.methods import NF4_BITS, Method
from rankwise.records import Facts, MemoryEstimate, ModelFacts, TrainConfig

BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
# What the process needs beside tensors. CPU: 0.45 GB of Python with torch, transformers and peft imported, and 0.4
# GB of oneDNN's prepared kernels and allocator slack after a few steps (docs/log.md). GPU: CUDA context and kernels
# (0.4 to 0.6 GB on A100, H100).
PROCESS_BYTES = {"cpu": 850_000_000, "gpu": 600_000_000}
# Gradient, m and v per trained parameter, in units of the parameter's own bytes.
OPTIMIZER_STATES = {"adamw_torch": 2, "adamw_torch_fused": 2, "sgd": 0}
# bf16 logits, fp32 logits, fp32 softmax and its gradient, bf16 gradient: 2 + 4 + 4 + 2.
BYTES_PER_LOGIT = 12
# Measured peaks lie between 0.95 and 1.25 of this formula on the runs of docs/log.md; the rest is for shapes not run
# there.
INTERVAL = (0.75, 1.4)


def weight_bytes(model: ModelFacts, config: TrainConfig, method: Method, trainable: int) -> int:
    """Bytes of all weights while training."""
    dtype = BYTES[config.dtype]
    if method.trains == "weights":
        return dtype * model.total_params
    frozen = dtype * model.total_params
    if method.base_bits == 4:
        frozen = round(NF4_BITS / 8 * model.linear_params) + dtype * (model.total_params - model.linear_params)
    return frozen + 4 * trainable  # adapters are fp32


def activation_bytes(model: ModelFacts, config: TrainConfig, method: Method, tokens: int) -> int:
    """Bytes saved for the backward pass by one forward pass over `tokens`.

    Per token and block without checkpointing: 24 hidden-size and 6 intermediate-size values (the inputs of norms,
    projections, attention and the gated MLP, some of them twice because autocast casts), 2 bytes each under bf16.
    With checkpointing: the block's input, and one block in full.
    """
    value = 2 if "bf16" in (config.dtype, config.autocast) else 4
    block = value * (24 * model.hidden_size + 6 * (model.intermediate_size or 4 * model.hidden_size))
    saved = tokens * model.num_hidden_layers * block
    if config.gradient_checkpointing:
        saved = tokens * (model.num_hidden_layers * value * model.hidden_size + block)
    if config.autocast and config.dtype == "fp32":
        saved += 2 * model.linear_params  # autocast's bf16 copies of fp32 weights live until the backward pass
    return saved


def estimate_memory(facts: Facts, config: TrainConfig, method: Method, trainable: int) -> MemoryEstimate:
    model = facts.model
    width = 4 if method.trains == "adapter" else BYTES[config.dtype]
    longest = min(facts.data.longest, config.max_length)
    tokens = longest * config.per_device_train_batch_size
    supervised = facts.data.supervised_tokens / max(facts.data.tokens, 1)
    parts = {
        "weights": weight_bytes(model, config, method, trainable),
        "gradients": width * trainable,
        "optimizer": OPTIMIZER_STATES[config.optim] * width * trainable,
        "activations": activation_bytes(model, config, method, tokens),
        "logits": round(tokens * supervised) * model.vocab_size * BYTES_PER_LOGIT,
        "workspace": PROCESS_BYTES[facts.device.kind],
    }
    peak = sum(parts.values())
    interval = (INTERVAL[0] * peak, INTERVAL[1] * peak)
    capacity = facts.device.memory_bytes
    return MemoryEstimate(
        **parts,
        peak_allocated=peak - parts["workspace"],
        peak_reserved=None,
        peak_device=peak,
        peak_phase=None,
        peak_op=None,
        eval_peak=None,
        save_peak=None,
        merge_peak=None,
        capacity=capacity,
        interval=interval,
        fits=interval[1] <= capacity,
    )
