"""LoRA (Hu et al. 2021, arXiv 2106.09685): W x + (alpha / r) B A x with A (r x in) and B (out x r) trained, W
frozen.
"""

from typing import Any

from rankwise.methods.base import Method, targeted
from rankwise.records import ModelFacts, TrainConfig

# All linear layers: attention-only adapters are worse at equal parameters (E4, E6). alpha = 2 r is one of the
# conventions in use; with the learning rate beside it, it is redundant (E6), so it is held fixed.
DEFAULTS = {"r": 8, "lora_alpha": 16.0, "lora_dropout": 0.0, "target_modules": "all-linear"}


def lora_params(facts: ModelFacts, config: TrainConfig) -> int:
    """r x (in + out) for each targeted matrix."""
    assert config.r is not None
    return config.r * sum((s.in_features + s.out_features) * s.count for s in targeted(facts, config.target_modules))


def lora_config(config: TrainConfig) -> tuple[str, dict[str, Any]]:
    targets = config.target_modules
    if isinstance(targets, str) and targets != "all-linear":
        targets = (targets,)  # PEFT would read a bare string as a regular expression over whole module paths
    return "LoraConfig", {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": targets if isinstance(targets, str) else list(targets or ()),
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }


LORA = Method(
    name="lora",
    trains="adapter",
    base_bits=16,
    defaults=DEFAULTS,
    trainable_params=lora_params,
    peft_config=lora_config,
    vllm=True,
)
