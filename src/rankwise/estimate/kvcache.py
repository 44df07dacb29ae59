"""The key-value cache of one conversation, from the config alone.

A layer of attention keeps a key and a value of every token for each of its key-value heads; multi-head latent attention
(DeepSeek-V2, arXiv 2405.04434) keeps one compressed vector and one rotary key instead; a sliding window keeps the last
tokens only; linear attention, Mamba and short convolutions keep a state that does not grow, whose size is not computed
here. These are the sizes of vLLM's cache and of transformers' DynamicCache, except for Falcon's new decoder
architecture, whose heads transformers stores repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CACHE_WIDTH = 2  # bytes of a key's or a value's number: bf16, the engines' default beside 16-bit arithmetic

LATENT = {"deepseek_v2", "deepseek_v3", "glm4_moe_lite", "kimi_linear"}
# Where a config names no `layer_types`: every layer attends to everything, or to a window if the config has one.
WINDOWED = {"mistral", "mixtral", "phi3", "starcoder2"}
PLAIN = {
    "apertus",
    "arcee",
    "bloom",
    "ernie4_5_moe",
    "falcon",
    "gemma",
    "glm",
    "glm4",
    "glm4_moe",
    "gpt2",
    "gpt_bigcode",
    "gpt_neox",
    "gptj",
    "granite",
    "granitemoe",
    "internlm3",
    "llama",
    "ministral3",
    "mpt",
    "olmo",
    "olmo2",
    "opt",
    "phi",
    "qwen3_moe",
    "seed_oss",
    "smollm3",
    "stablelm",
}
# Qwen's switch for a window over the upper layers is off in every published config.
SWITCHED = {"qwen2", "qwen2_moe", "qwen3"}
NAMED = {"granitemoehybrid", "lfm2", "lfm2_moe"}

FULL, SLIDING, CHUNKED, STATE, NOTHING = "full", "sliding", "chunked", "state", "nothing"
KINDS = {
    "full_attention": FULL,
    "attention": FULL,
    "sliding_attention": SLIDING,
    "chunked_attention": CHUNKED,
    "linear_attention": STATE,
    "mamba": STATE,
    "conv": STATE,
}
LETTERS = {"*": FULL, "M": STATE, "E": NOTHING, "-": NOTHING}  # Nemotron-H's pattern
# Every n-th layer attends to everything: the key that says n, its default, and what the layers between are.
PERIODS = {
    "afmoe": ("global_attn_every_n_layers", 4, SLIDING),
    "gemma2": ("", 2, SLIDING),
    "gemma3_text": ("sliding_window_pattern", 6, SLIDING),
    "gpt_oss": ("", 2, SLIDING),
    "llama4_text": ("no_rope_layer_interval", 4, CHUNKED),
    "olmo3": ("", 4, SLIDING),
    "qwen3_5_text": ("full_attention_interval", 4, STATE),
    "qwen3_next": ("full_attention_interval", 4, STATE),
}
OWN = {"jamba", "nemotron_h"}
KNOWN = LATENT | WINDOWED | PLAIN | SWITCHED | NAMED | OWN | PERIODS.keys()


@dataclass(frozen=True)
class Cache:
    """What one conversation keeps.

    Attributes:
        per_token: bytes that one more token adds while no window is full.
        layers: of each kind that grows: (how many, tokens kept at most or None, bytes a token and layer).
        has_state: some layers keep a state of unknown size besides.
    """

    per_token: int
    layers: tuple[tuple[int, int | None, int], ...]
    has_state: bool

    def bytes(self, context: int) -> int | None:
        """Of one conversation of `context` tokens; None where a part is unknown."""
        if self.has_state:
            return None
        return sum(
            count * size * (context if most is None else min(context, most)) for count, most, size in self.layers
        )


def cache_of(config: Mapping[str, Any]) -> Cache | None:
    """The cache of a model by its config.json; None for a family that is not known here."""
    text = config.get("text_config") or config
    kinds = layer_kinds(text)
    if kinds is None:
        return None
    size = _token_bytes(text)
    windows = {FULL: None, SLIDING: text.get("sliding_window"), CHUNKED: text.get("attention_chunk_size")}
    if any(kind in kinds and not windows[kind] for kind in (SLIDING, CHUNKED)):
        return None
    layers = tuple((kinds.count(kind), window, size) for kind, window in windows.items() if kind in kinds)
    return Cache(sum(count * size for count, _, size in layers), layers, STATE in kinds)


def layer_kinds(config: Mapping[str, Any]) -> list[str] | None:
    """`full`, `sliding`, `chunked`, `state` or `nothing` for each decoder layer; None where they are not known."""
    kind = config.get("model_type")
    count = _first(config, "num_hidden_layers", "n_layer", "n_layers")
    if kind not in KNOWN or (count is None and kind != "nemotron_h"):
        return None
    if named := config.get("layer_types"):
        found = [KINDS.get(name, "") for name in named]
        return None if "" in found else found
    if kind in PERIODS:
        return _periodic(config, count)
    if kind in OWN:
        return _patterned(config, count or 0)
    if kind in NAMED or kind == "kimi_linear" or (kind in SWITCHED and config.get("use_sliding_window")):
        return None
    return [SLIDING if kind in WINDOWED and config.get("sliding_window") else FULL] * count


def _periodic(config: Mapping[str, Any], count: int) -> list[str]:
    key, default, between = PERIODS[config["model_type"]]
    if rotary := config.get("no_rope_layers"):  # Llama 4: 1 for a layer with positions, which looks at its chunk
        return [between if flag else FULL for flag in rotary]
    period = config.get(key) or default
    return [between if (i + 1) % period else FULL for i in range(count)]


def _patterned(config: Mapping[str, Any], count: int) -> list[str] | None:
    if config["model_type"] == "jamba":
        period, offset = config.get("attn_layer_period", 8), config.get("attn_layer_offset", 4)
        return [FULL if i % period == offset else STATE for i in range(count)]
    pattern = config.get("hybrid_override_pattern")
    return [LETTERS[letter] for letter in pattern] if pattern and set(pattern) <= set(LETTERS) else None


def _token_bytes(config: Mapping[str, Any]) -> int:
    """Bytes that one token keeps in one layer of attention."""
    if config["model_type"] in LATENT:
        return CACHE_WIDTH * int(config["kv_lora_rank"] + config["qk_rope_head_dim"])
    heads = _first(config, "num_attention_heads", "n_head", "n_heads")
    width = config.get("head_dim") or _first(config, "hidden_size", "n_embd", "d_model") // heads
    return CACHE_WIDTH * 2 * _key_value_heads(config, heads) * int(width)


def _key_value_heads(config: Mapping[str, Any], heads: int) -> int:
    """Old families say it with a switch for multi-query attention, which is on by default."""
    kind = config["model_type"]
    if kind == "falcon" and config.get("new_decoder_architecture"):
        return int(config.get("num_kv_heads") or heads)
    if kind in ("falcon", "gpt_bigcode"):
        return 1 if config.get("multi_query", True) else heads
    return int(config.get("num_key_value_heads") or heads)


def _first(config: Mapping[str, Any], *names: str) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)
