"""May several documents share a row? Only where nothing of one reaches another."""

from collections.abc import Mapping
from typing import Any

from rankwise.decide.compatibility import refused
from rankwise.errors import JobError
from rankwise.records import Facts, Job

# Layers that carry a state or a convolution from token to token; transformers 5.23 resets neither between documents
# (masking_utils.create_recurrent_attention_mask knows padding alone).
CARRYING_LAYERS = ("linear_attention", "mamba", "conv", "recurrent", "hybrid", "hybrid_sliding", "compressed")
CARRYING_KEYS = ("mamba_d_state", "state_size", "ssm_state_size", "lru_width", "linear_conv_kernel_dim", "conv_L_cache")
CARRYING_MODELS = ("mamba", "jamba", "zamba", "rwkv", "xlstm", "minimax", "kimi_linear", "bailing_hybrid", "zaya")
# What says that positions or distances are counted along the row, whatever the position ids.
ALIBI_MODELS = ("bloom", "mpt")
# Their classes make the attention mask without the position ids by which documents are found.
DEAF_MODELS = ("opt",)
# Seen to keep documents apart, with sdpa and with eager attention: tests/model/test_apart.py packs each of them.
PROVEN = frozenset(
    (
        *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3_text", "phi", "phi3", "granite", "gpt2", "gpt_neox"),
        *("olmo", "olmo2", "stablelm", "starcoder2", "cohere", "smollm3", "mixtral", "qwen3_moe"),
    )
)


def packs(method: str, facts: Facts) -> bool:
    """Does a plan pack without being asked? On a CPU, where padding and short rows cost most, and the attention takes
    one document after the other; on a GPU packing needs a kernel that does, which a plan cannot know of.
    """
    seen = facts.model.config.get("model_type") in PROVEN and why_not(facts.model.config) is None
    alone = facts.device.kind == "cpu" and facts.device.count == 1
    return alone and seen and refused(method, "packing") is None


def why_not(config: Mapping[str, Any]) -> str | None:
    """Why rows of this model cannot hold several documents; None where its attention alone looks back."""
    text = config.get("text_config") or config
    kind = str(text.get("model_type") or "")
    layers = [name for name in text.get("layer_types") or () if str(name).startswith(CARRYING_LAYERS)]
    if layers or kind.startswith(CARRYING_MODELS) or any(text.get(key) for key in CARRYING_KEYS):
        return f"{kind} has layers that carry a state from one document into the next"
    if kind.startswith(ALIBI_MODELS) or text.get("alibi"):
        return f"{kind} counts distances along the row (ALiBi), whatever the position ids"
    if kind in DEAF_MODELS:
        return f"{kind} makes its attention mask without the position ids, by which documents are found"
    return None


def require_packable(job: Job, facts: Facts) -> None:
    """Raises JobError when the job asks for packing where documents would see each other, or devices wait for ever."""
    if not job.train.packing:
        return
    if facts.device.count > 1:
        raise JobError(
            f"train.packing is asked for on {facts.device.count} devices: the documents of each fill another number of "
            "rows, and devices that share a step would wait for passes that do not come",
            expected="one device",
            fix="remove train.packing; rows of similar lengths then go through the model together",
        )
    never = refused(job.method.name, "packing") if job.method else None
    reason = f"{job.method.name}: {never.why}" if job.method and never else why_not(facts.model.config)
    if reason is not None:
        raise JobError(
            f"train.packing cannot hold: {reason}",
            expected="a model and a method whose attention can be kept within each document",
            fix="remove train.packing; rows of similar lengths then go through the model together",
        )
