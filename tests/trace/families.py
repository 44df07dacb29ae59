"""Small models of many families, as config.json would have them, and the setups that trace them."""

from typing import Any

import pytest

from rankwise.records.setup import Setup, Trace
from rankwise.trace import peaks
from rankwise.trace.lastruns import LastRuns

VOCAB = 384
LAYERS = 7  # the fewest that are not traced in full
TOKENS: dict[str, Any] = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
NEW: dict[str, Any] = {
    "num_hidden_layers": LAYERS,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
} | TOKENS
OLD: dict[str, Any] = {k: v for k, v in NEW.items() if k != "num_key_value_heads"}
MOE: dict[str, Any] = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"} | NEW,
    "mistral": {"model_type": "mistral", "sliding_window": None} | NEW,
    "qwen3": {"model_type": "qwen3", "head_dim": 16} | NEW,
    "gemma2": {"model_type": "gemma2", "head_dim": 16, "sliding_window": 16} | NEW,
    "gemma3": {"model_type": "gemma3_text", "head_dim": 16, "sliding_window": 16} | NEW,
    "phi3": {"model_type": "phi3"} | NEW,
    "granite": {"model_type": "granite", "logits_scaling": 8.0} | NEW,
    "olmo2": {"model_type": "olmo2"} | NEW,
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2} | NEW,
    "gpt2": {"model_type": "gpt2", "n_layer": LAYERS, "n_embd": 64, "n_head": 4, "n_positions": 256} | TOKENS,
    "gpt_neox": {"model_type": "gpt_neox"} | OLD,
    "falcon": {"model_type": "falcon", "new_decoder_architecture": False, "multi_query": True} | OLD,
    "bloom": {"model_type": "bloom", "n_layer": LAYERS, "hidden_size": 64, "n_head": 4} | TOKENS,
    "opt": {"model_type": "opt", "ffn_dim": 160, "word_embed_proj_dim": 64} | OLD,
}
# Layers that are not alike: a dense layer before the experts; two kinds of attention in no short period.
UNLIKE: dict[str, dict[str, Any]] = {
    "deepseek_v3": {
        "model_type": "deepseek_v3",
        "first_k_dense_replace": 2,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "n_shared_experts": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 16,
    }
    | MOE
    | NEW
    | {"num_key_value_heads": 4},
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        "head_dim": 16,
        "num_experts": 4,
        "decoder_sparse_step": 2,
    }
    | MOE
    | NEW,
}


def setup(family: str = "llama", method: str = "full", **changes: Any) -> Setup:
    """A step of two rows of 32 tokens; `config` adds to the family's configuration."""
    config = (FAMILIES | UNLIKE)[family] | changes.pop("config", {})
    values: dict[str, Any] = {"dtype": "bf16", "per_device_train_batch_size": 2, "max_length": 32, "device": "gpu-8.0"}
    if method != "full":
        values["r"] = 4
    return Setup(config=config, method=method, **(values | changes))


def traced(of: Setup, *, whole: bool = False) -> tuple[Trace, list[int | None]]:
    """The trace, and how many layers each run of the step had (None: all). `whole`: nothing is extended."""
    depths: list[int | None] = []
    plain = peaks.run_step

    def run(setup: Setup, layers: int | None = None) -> Any:
        depths.append(layers)
        return plain(setup, layers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peaks, "run_step", run)
        patch.setattr(peaks, "_last", LastRuns(8))
        if whole:
            patch.setattr(peaks, "TRACED", 10_000)
        return peaks.trace(of), depths
