"""Packed documents do not see each other, in each model class that a plan packs; the check that says so finds leaks."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rankwise.decide.packing import PROVEN, why_not
from rankwise.errors import TrainingError
from rankwise.model import blockwise
from rankwise.model.apart import require_apart
from rankwise.model.blockwise import blockwise_attention

DOCUMENTS = (range(5, 29), range(60, 90))
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
OWN: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "mistral": SIZES | {"sliding_window": 6},
    "gemma3_text": SIZES | {"sliding_window": 6, "head_dim": 8},
    "gemma": SIZES | {"head_dim": 8},
    "qwen3": SIZES | {"head_dim": 8},
    "mixtral": SIZES | EXPERTS,
    "qwen3_moe": SIZES | EXPERTS | {"head_dim": 8},
    "lfm2": SIZES | {"layer_types": ["conv", "full_attention"]},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "opt": SIZES | {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2},
}


def model_of(kind: str, attention: str, **changes: Any) -> Any:
    options = {"vocab_size": 320, "max_position_embeddings": 128, "initializer_range": 0.3, "pad_token_id": 2}
    if kind in ("gpt2", "mpt"):
        options.pop("max_position_embeddings")
    config = AutoConfig.for_model(kind, **options, **OWN.get(kind, SIZES), **changes)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention).eval()


@pytest.mark.parametrize("kind", sorted(PROVEN))
@pytest.mark.parametrize("attention", ["sdpa", "eager", "blockwise"])
def test_each_class_that_a_plan_packs_keeps_documents_apart(kind: str, attention: str) -> None:
    model = model_of(kind, "sdpa" if attention == "blockwise" else attention)
    assert why_not(model.config.to_dict()) is None
    context = blockwise_attention if attention == "blockwise" else lambda model: nullcontext()
    require_apart(model, DOCUMENTS, None, context)


@pytest.mark.prove
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_flex_attention_keeps_documents_apart(kind: str) -> None:
    """It runs on a CPU, and compiles for a minute."""
    require_apart(model_of(kind, "flex_attention"), DOCUMENTS, None, lambda model: nullcontext())


@pytest.mark.parametrize("kind", ["lfm2", "mamba", "opt", "bloom", "mpt"])
def test_a_class_that_leaks_is_found_and_refused(kind: str) -> None:
    model = model_of(kind, "eager")
    with pytest.raises(TrainingError, match="packed document"):
        require_apart(model, DOCUMENTS, None, lambda model: nullcontext())
    assert why_not(model.config.to_dict())


def test_bf16_and_autocast_are_within_rounding() -> None:
    model = model_of("llama", "sdpa")
    require_apart(model, DOCUMENTS, "bf16", blockwise_attention)
    require_apart(model.to(torch.bfloat16), DOCUMENTS, None, blockwise_attention)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_leak_is_found_in_either_precision(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    """Attention that takes the row for one document."""
    monkeypatch.setattr(blockwise, "spans_of", lambda ids, rows: [(0, 0, ids.shape[1])])
    model = model_of("llama", "sdpa")
    with pytest.raises(TrainingError, match="the second of two packed documents sees the first"):
        require_apart(model, DOCUMENTS, None if precision == "fp32" else "bf16", blockwise_attention)


def test_positions_that_do_not_begin_anew_are_found() -> None:
    model = model_of("gpt2", "sdpa")
    plain = model.forward
    model.forward = lambda **given: plain(**{k: v for k, v in given.items() if k != "position_ids"})
    with pytest.raises(TrainingError):
        require_apart(model, DOCUMENTS, None, blockwise_attention)
