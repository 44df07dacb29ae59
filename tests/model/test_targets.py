"""Which modules an adapter is put on, what is said about it, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from rankwise.errors import UsageError
from rankwise.methods import TUNERS, AdapterOptions
from rankwise.model.attach import peft_config, trainable_params, wrap
from rankwise.model.load import load_base
from rankwise.model.targets import find_targets, linear_layers, widths
from tests.tiny import tiny_gpt2, tiny_llama


@pytest.fixture
def llama(tmp_path: Path) -> PreTrainedModel:
    return load_base(tiny_llama(tmp_path, hidden=64, intermediate=128), dtype="fp32")


def wrapped(model: PreTrainedModel, method: str = "lora", **options: Any) -> tuple[int, tuple[str, ...]]:
    made = wrap(model, method, AdapterOptions(**options), seed=0)
    return trainable_params(made.model), made.notes


def unknown_type() -> PreTrainedModel:
    """A model type for which PEFT has no default targets of any tuner."""
    config = AutoConfig.for_model(
        "olmo",
        vocab_size=320,
        num_hidden_layers=2,
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=4,
        pad_token_id=1,
        eos_token_id=2,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def test_all_linear_is_every_linear_layer_but_the_head(llama: PreTrainedModel) -> None:
    expected = sum(4 * sum(pair) for m in linear_layers(llama).values() if (pair := widths(m)))
    assert "lm_head" not in linear_layers(llama) and len(linear_layers(llama)) == 14
    assert wrapped(llama, r=4, target_modules="all-linear") == (expected, ())


def test_conv1d_has_its_widths_the_other_way_round(tmp_path: Path) -> None:
    found = linear_layers(load_base(tiny_gpt2(tmp_path), dtype="fp32"))
    assert widths(found["transformer.h.0.attn.c_attn"]) == (32, 96)


def test_a_name_that_one_model_lacks_is_left_out_with_a_note(llama: PreTrainedModel) -> None:
    count, notes = wrapped(llama, r=4, target_modules=("q_proj", "c_attn"))
    assert count == 2 * 4 * (64 + 64)
    assert notes == ("target c_attn is ignored: LlamaForCausalLM has no such module",)


def test_names_that_match_nothing_are_refused_with_those_there_are(llama: PreTrainedModel) -> None:
    with pytest.raises(UsageError) as caught:
        wrapped(llama, target_modules=("c_attn", "query"))
    assert "c_attn, query" in caught.value.what
    assert "all-linear" in caught.value.expected and "down_proj" in caught.value.expected


@pytest.mark.parametrize("method", ["lora", "dora", "adalora", "loha", "hira"])
def test_a_rank_beyond_the_matrix_is_refused(llama: PreTrainedModel, method: str) -> None:
    with pytest.raises(UsageError) as caught:
        wrapped(llama, method, r=33, target_modules=("q_proj", "v_proj"))
    assert "v_proj has 32" in caught.value.what and caught.value.expected == "a rank of at most 32"
    assert wrapped(llama, method, r=32, target_modules=("q_proj", "v_proj"))[0] > 0


def test_a_rank_is_at_least_one(llama: PreTrainedModel) -> None:
    with pytest.raises(UsageError, match="rank 0"):
        wrapped(llama, r=0, target_modules="all-linear")


def test_vera_may_have_a_larger_rank_than_the_matrix(llama: PreTrainedModel) -> None:
    assert wrapped(llama, "vera", r=256, target_modules=("q_proj",))[0] == 2 * (256 + 64)


@pytest.mark.parametrize("method", ["prompt", "prefix", "p_tuning"])
def test_prompt_methods_have_no_targets_and_say_so(llama: PreTrainedModel, method: str) -> None:
    _, notes = wrapped(llama, method, target_modules=("q_proj",), r=8)
    assert notes == (f"rank 8 is ignored: {method} has no rank", f"targets are ignored: {method} has none")


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("lora", "all linear layers"),
        ("ia3", "down_proj, k_proj, v_proj"),
        ("beft", "v_proj"),
    ],
)
def test_without_a_default_of_peft_the_fallback_is_named(method: str, names: str) -> None:
    count, notes = wrapped(unknown_type(), method)
    assert count > 0
    assert notes == (f"PEFT has no default targets of {method} for olmo: {names}",)


def test_ia3_scales_the_input_of_the_feedforward_layer_that_was_asked_for(llama: PreTrainedModel) -> None:
    assert wrapped(llama, "ia3", target_modules=("k_proj", "down_proj"))[0] == 2 * (32 + 128)
    assert wrapped(load_base_again(llama), "ia3", target_modules=("k_proj",))[0] == 2 * 32


def load_base_again(model: PreTrainedModel) -> PreTrainedModel:
    again: PreTrainedModel = AutoModelForCausalLM.from_config(model.config)
    return again


def test_a_block_size_is_made_to_fit_and_a_given_one_is_kept(llama: PreTrainedModel) -> None:
    config, notes = peft_config(llama, TUNERS["road"], AdapterOptions(target_modules=("q_proj", "v_proj")))
    assert config.group_size == 32
    assert notes == ("group_size 32 instead of 64: it has to divide the width of every target",)
    with pytest.raises(UsageError, match="road cannot be attached"):
        wrapped(llama, "road", target_modules=("v_proj",), more={"group_size": 64})


def test_what_is_kept_out_is_not_all_linear(llama: PreTrainedModel) -> None:
    found = find_targets(llama, TUNERS["lora"], "all-linear", {}, lambda name: ".mlp." in name)
    assert len(found.modules) == 8 and found.fields["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert not any("mlp" in name for name in found.modules)


def test_full_is_not_an_adapter(llama: PreTrainedModel) -> None:
    with pytest.raises(UsageError, match="no adapter"):
        wrapped(llama, "full")
