"""The least that a device holds between two steps, without a trace: weights, gradients and optimizer states."""

from rankwise.methods import NF4_BITS, TUNERS
from rankwise.methods.lora import lora_params
from rankwise.records import Candidate, Facts, TrainConfig

ADAPTER_BYTES = 16  # fp32 weights, gradients and both of Adam's states
MASTER_BYTES = 12  # DeepSpeed's fp32 weights and both states of a trained parameter
STATE_BYTES = {"adamw_torch": 2, "adamw_torch_fused": 2, "adamw_8bit": 0.5, "paged_adamw_8bit": 0.0, "sgd": 0}
WEIGHT_BYTES = {"nf4": NF4_BITS / 8, "int8": 1}  # of a quantised linear layer's weight


def least_bytes(facts: Facts, candidate: Candidate) -> float:
    """Bytes on one device that no way of running the step can go below. No activations, no logits, no temporaries."""
    if candidate.offload == "all":
        return 0.0
    shares = facts.device.count
    weights, trained = _held(facts, candidate.config)
    if candidate.parallel.startswith("zero") and candidate.method == "full":
        trained = float(MASTER_BYTES * facts.model.total_params)
    if candidate.offload == "optimizer":
        trained = 0.0
    if candidate.parallel in ("fsdp", "zero3"):
        return (weights + trained) / shares
    if candidate.parallel == "zero2":
        return weights + trained / shares
    return weights + trained


def _held(facts: Facts, config: TrainConfig) -> tuple[float, float]:
    """(weights, gradients and states) of one whole copy."""
    model = facts.model
    width = 4 if config.dtype == "fp32" else 2
    if config.method == "full":
        gradients = 0 if config.optimizer_in_backward else width
        # bitsandbytes' 8-bit states take a byte each, whatever the weights' width; torch's are as wide as the weights.
        states = STATE_BYTES.get(config.optim, 0) * (4 if "8bit" in config.optim else width)
        return float(model.total_params * width), float(model.total_params * (gradients + states))
    frozen = float(model.total_params * width)
    if (stored := WEIGHT_BYTES.get(TUNERS[config.method].base)) is not None:
        frozen = model.linear_params * stored + (model.total_params - model.linear_params) * width
    trained = 0 if config.r is None else lora_params(facts.model, config.r, config.target_modules)
    return frozen, float(ADAPTER_BYTES * trained)
