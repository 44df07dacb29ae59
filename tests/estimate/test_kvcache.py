"""The key-value cache, against the caches that transformers fills: every family of the catalogue on `meta`, and tiny
models of several families for real.
"""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from rankwise.estimate.kvcache import FULL, KNOWN, SLIDING, STATE, cache_of, layer_kinds
from rankwise.observe.catalogue import Architecture, architectures
from rankwise.records import Setup
from rankwise.trace.build import configuration
from rankwise.trace.run import _tracing

TOKENS = 16
UNKNOWN = {"gemma4_text"}  # its layers differ in heads and width
REPEATED = {"falcon-40b"}  # transformers caches the heads repeated for each query head


def one_of_each() -> list[Architecture]:
    found: dict[str, Architecture] = {}
    for architecture in architectures():
        found.setdefault(architecture.config["model_type"], architecture)
    return list(found.values())


FAMILIES = [a for a in one_of_each() if a.config["model_type"] not in UNKNOWN]


def kept(layer: Any) -> int:
    """Bytes of the keys and values of a layer; 0 where it keeps none."""
    tensors = (getattr(layer, "keys", None), getattr(layer, "values", None))
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def short(architecture: Architecture, layers: int = 6) -> Any:
    """transformers' config of the architecture with few layers and few experts, which keep no cache."""
    config = architecture.config
    experts = {k: 4 for k in ("num_experts", "num_local_experts", "n_routed_experts") if config.get(k)}
    chosen = {k: 2 for k in ("num_experts_per_tok", "num_experts_per_token") if config.get(k)}
    asked = Setup(
        config=config | experts | chosen, method="full", dtype="bf16", per_device_train_batch_size=1, max_length=8
    )
    found = configuration(asked, layers)
    found.use_cache = True
    return found


@pytest.mark.parametrize("architecture", FAMILIES, ids=lambda a: a.config["model_type"])
def test_a_token_adds_what_transformers_keeps_of_it(architecture: Architecture) -> None:
    predicted = cache_of(architecture.config)
    assert predicted is not None
    config = short(architecture)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="eager").eval()
        ids = torch.zeros((1, TOKENS), dtype=torch.long)
    with torch.no_grad(), _tracing():
        cache = model(input_ids=ids, use_cache=True).past_key_values
    sizes = {kept(layer) for layer in cache.layers} - {0}
    assert len(sizes) == 1, "layers of one size"
    assert {size * TOKENS for _, _, size in predicted.layers} == sizes


@pytest.mark.parametrize("architecture", architectures(), ids=lambda a: a.name)
def test_layers_are_of_the_kinds_that_transformers_makes(architecture: Architecture) -> None:
    """DynamicCache chooses a class for each layer from the whole config."""
    given = architecture.config
    if given["model_type"] in UNKNOWN:
        assert layer_kinds(given) is None and cache_of(given) is None
        return
    made = DynamicCache(config=AutoConfig.for_model(**given)).layers
    kinds = layer_kinds(given)
    assert kinds is not None
    windows = [getattr(layer, "sliding_window", None) for layer in made if type(layer).__name__ != "DummyLayer"]
    names = [type(layer).__name__ for layer in made if type(layer).__name__ != "DummyLayer"]
    grows = [kind for kind in kinds if kind != "nothing"]
    if not names:  # no layer kinds in the config: classes are chosen as tokens come
        assert set(grows) == {FULL}
        return
    assert [kind == FULL for kind in grows] == [name == "DynamicLayer" for name in names]
    assert [kind == STATE for kind in grows] == [name == "LinearAttentionLayer" for name in names]
    found = cache_of(given)
    assert found is not None and {w for _, w, _ in found.layers} - {None} == set(windows) - {None}


def test_every_family_of_the_catalogue_is_known_and_no_other() -> None:
    families = {a.config["model_type"] for a in architectures()}
    assert families - UNKNOWN <= KNOWN
    assert cache_of({"model_type": "somebody's own", "num_hidden_layers": 2}) is None
    assert cache_of({"model_type": "gemma2", **TINY}) is None, "its windows have no size"


# -- real caches of tiny models -------------------------------------------------------------------

TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
LATENT = {
    "num_key_value_heads": 4,
    "head_dim": 8,
    "kv_lora_rank": 24,
    "q_lora_rank": None,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "first_k_dense_replace": 4,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
REAL: list[dict[str, Any]] = [
    {"model_type": "llama", **TINY},
    {"model_type": "qwen2", **TINY, "head_dim": 8},
    {"model_type": "gemma3_text", **TINY, "sliding_window": 8, "sliding_window_pattern": 2},
    {"model_type": "mistral", **TINY, "sliding_window": 8},
    {"model_type": "mistral", **TINY, "sliding_window": None},
    {"model_type": "deepseek_v3", **TINY, **LATENT},
    {"model_type": "deepseek_v2", **TINY, **LATENT},
]


@pytest.mark.parametrize("context", [5, 40])
@pytest.mark.parametrize("config", REAL, ids=lambda c: f"{c['model_type']}-{c.get('sliding_window')}")
def test_a_conversation_keeps_what_transformers_keeps(config: dict[str, Any], context: int) -> None:
    """A window may hold one token less: the newest needs no place of its own."""
    predicted = cache_of(config)
    assert predicted is not None
    real = AutoConfig.for_model(**config)
    model = AutoModelForCausalLM.from_config(real, dtype=torch.bfloat16).eval()
    cache = DynamicCache(config=real)
    with torch.no_grad():
        for ids in torch.arange(context).remainder(60).split(8):  # as an engine does: a piece of the text after another
            model(input_ids=ids.unsqueeze(0), past_key_values=cache, use_cache=True)
    found, expected = sum(kept(layer) for layer in cache.layers), predicted.bytes(context)
    assert expected is not None
    sliding = sum(count for count, window, _ in predicted.layers if window is not None and window <= context)
    assert expected - sliding * predicted.layers[0][2] <= found <= expected
    if not sliding:
        assert found == expected == context * predicted.per_token


def test_a_windows_cache_stops_growing_and_a_whole_one_does_not() -> None:
    gemma = next(a for a in architectures() if a.name == "gemma-3-1b").config
    found = cache_of(gemma)
    assert found is not None and layer_kinds(gemma).count(SLIDING) == 22  # type: ignore[union-attr]
    whole = 4 * 2 * 2 * 256  # bytes a token of the four layers that keep everything
    assert (found.bytes(8192) or 0) - (found.bytes(4096) or 0) == 4096 * whole
    assert found.per_token == 26 * 2 * 2 * 256


def test_the_size_of_a_state_is_unknown_and_what_a_token_adds_is_not() -> None:
    jamba = next(a for a in architectures() if a.name == "jamba-v0.1").config
    found = cache_of(jamba)
    assert found is not None and found.has_state
    assert found.per_token == 4 * 2 * 2 * 8 * 128 and found.bytes(100) is None


@pytest.mark.parametrize(
    ("name", "per_token"),
    [("llama-3-8b", 131_072), ("llama-2-7b", 524_288), ("llama-3-70b", 327_680), ("moonlight-16b-a3b", 31_104)],
)
def test_published_models(name: str, per_token: int) -> None:
    """Llama-3-8B: 32 layers x 8 heads x 128 x 2 x 2 bytes = 128 KiB a token; Llama-2-7B 512 KiB."""
    config = next(a for a in architectures() if a.name == name).config
    assert cache_of(config).per_token == per_token  # type: ignore[union-attr]
