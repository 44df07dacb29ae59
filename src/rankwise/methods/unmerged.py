"""Which adapters vLLM serves beside each other, unmerged, on one base: said once, for planning, export and serving."""

from collections.abc import Mapping
from typing import Any

# vLLM reads LoRA and rank-stabilised LoRA (vllm/lora/peft_helper.py, 0.32). QLoRA's files are LoRA's; PiSSA is
# published as LoRA of twice the rank over the untouched base.
UNMERGED = ("lora", "rslora", "pissa", "qlora", "lora-8bit", "gptq-lora")
# vLLM holds all its slots in full from the start, at one of these ranks and for every linear layer it can adapt
# (--max-lora-rank; vLLM PR 22782 and vllm/config/lora.py, 0.32).
SLOT_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# Values of init_lora_weights that leave the base as it is; the others take a part out of its weights.
PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


def slot_rank(rank: int) -> int | None:
    """The smallest rank of a slot that holds adapters of `rank`; None: vLLM has none so large."""
    return next((slot for slot in SLOT_RANKS if slot >= rank), None)


def highest_rank(config: Mapping[str, Any]) -> int:
    """Of a LoRA's adapter_config.json: `r`, or the largest of its `rank_pattern`."""
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    return max((rank for rank in ranks if isinstance(rank, int)), default=0)


def why_not_unmerged(config: Mapping[str, Any]) -> list[str]:
    """What in an adapter_config.json vLLM does not carry; nothing where it can. What it would leave out in silence (new
    tokens, whole saved modules) is refused here as well.
    """
    if config.get("peft_type") != "LORA":
        return [f"it is {config.get('peft_type') or config.get('type') or 'no PEFT adapter'}, not LoRA"]
    found = [why for key, why in _FEATURES.items() if config.get(key)]
    if config.get("bias") not in (None, "none"):
        found.append(f"it trained biases (bias: {config['bias']})")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower() not in PLAIN_STARTS:
        found.append(f"init_lora_weights {start} stands on a base whose weights were changed")
    rank = highest_rank(config)
    if not rank:
        found.append("its rank is not told")
    elif slot_rank(rank) is None:
        found.append(f"rank {rank} is above {SLOT_RANKS[-1]}")
    return found


_FEATURES = {
    "use_dora": "it is DoRA",
    "modules_to_save": "it holds whole saved modules (modules_to_save)",
    "trainable_token_indices": "it trained rows of new tokens (trainable_token_indices)",
    "lora_bias": "it trained biases (lora_bias)",
    "target_parameters": "it adapts parameters that are no linear layer (target_parameters)",
    "alora_invocation_tokens": "it is activated LoRA",
    "layer_replication": "it replicates layers",
    "use_bdlora": "it is block-diagonal LoRA",
    "use_qalora": "it is QALoRA",
}
