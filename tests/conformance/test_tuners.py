"""Every tuner of the installed PEFT, and our own methods: each is traced with the counts and bytes of the real one, or
stands in a table with the reason.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from rankwise.errors import UsageError
from rankwise.methods import NOT_TRACED, TUNERS, AdapterOptions, tuner
from rankwise.model.adapterfile import adapter_file_bytes
from rankwise.model.attach import peft_types, total_params, trainable_params, wrap
from rankwise.records.setup import Setup, Trace
from rankwise.trace import peaks
from rankwise.trace.build import build, load
from rankwise.trace.kernels import adapters

SMALL = {"vocab_size": 320, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 9,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
} | SMALL
GPT2: dict[str, Any] = {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 4, "n_positions": 256} | SMALL

ADAPTERS = [name for name in TUNERS if name != "full"]
TRACED = [name for name in ADAPTERS if name not in NOT_TRACED]
# PEFT attaches these to nn.Linear alone, and GPT-2's layers are Conv1D. OSF attaches and leaves nothing to train.
NOT_ON_CONV1D = {
    *("loha", "lokr", "delora", "glora", "miss", "poly", "lily", "peanut", "psoft", "osf", "hra"),
    *("beft", "c3a", "road", "oft", "boft", "shira", "supertuning"),
}
# PEFT's hooks (poly) and its key-value cache do not survive a second forward pass.
REFUSES_CHECKPOINTING = {"poly", "prefix", "prefix_tuning", "cartridge"}


def setup(config: dict[str, Any], method: str, **changes: Any) -> Setup:
    values = {"dtype": "bf16", "per_device_train_batch_size": 2, "max_length": 32} | changes
    return Setup(config=config, method=method, **values)


def real(config: dict[str, Any], method: str, **options: Any) -> nn.Module:
    """The method on a model with weights, on the CPU."""
    given = dict(config)
    made = AutoConfig.for_model(given.pop("model_type"), **given)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(made, dtype=torch.bfloat16)
    model.requires_grad_(False)
    return wrap(model, method, AdapterOptions(**options), seed=0).model


def trained(model: nn.Module) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {n: (tuple(p.shape), p.dtype) for n, p in model.named_parameters() if p.requires_grad}


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No trace is extended: every layer is traced."""
    with monkeypatch.context() as patch:
        patch.setattr(peaks, "TRACED", 1000)
        yield


# -- the lists -------------------------------------------------------------------------------------


def test_every_tuner_of_peft_has_a_name_here() -> None:
    assert {t.peft_type for t in TUNERS.values() if t.peft_type} == set(peft_types())
    for kind in peft_types():
        assert tuner(kind.lower()).peft_type == kind


def test_every_name_traces_or_says_why_not() -> None:
    assert set(TRACED) | set(NOT_TRACED) == set(ADAPTERS)
    assert all(len(reason.split()) > 5 for reason in NOT_TRACED.values())


# -- those that are traced -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def traces() -> dict[str, Trace]:
    return {}


@pytest.mark.parametrize("method", TRACED)
def test_it_trains_on_meta_what_it_trains_on_the_cpu(method: str) -> None:
    meta, cpu = build(setup(LLAMA, method)), real(LLAMA, method)
    assert trained(meta) == trained(cpu) and trained(meta)
    assert all(p.device.type == "meta" for p in meta.parameters())
    assert all(b.device.type == "meta" for b in meta.buffers())


@pytest.mark.parametrize("method", TRACED)
def test_its_step_is_traced_with_exact_counts(method: str, traces: dict[str, Trace]) -> None:
    cpu = real(LLAMA, method)
    traces[method] = found = peaks.trace(setup(LLAMA, method))
    assert found.trainable_params == trainable_params(cpu)
    assert found.total_params == total_params(cpu)
    assert found.peak_allocated > found.resident > 0
    assert found.buckets.weights > 0 and found.buckets.optimizer > 0
    assert found.flops["forward"] > 0 and found.flops["backward"] > 0


@pytest.mark.parametrize("method", TRACED)
def test_a_few_layers_tell_of_all(method: str, traces: dict[str, Trace], whole: None) -> None:
    short = traces.get(method)
    if short is None:
        pytest.skip("its step was not traced")
    long = peaks.trace(setup(LLAMA, method))
    for name in ("peak_allocated", "peak_reserved", "resident", "eval_peak", "trainable_params", "total_params"):
        assert getattr(short, name) == getattr(long, name), name
    assert short.buckets == long.buckets
    for phase in ("forward", "backward"):
        assert short.flops[phase] == long.flops[phase]


@pytest.mark.parametrize("method", TRACED)
def test_gpt2_takes_it_or_peft_refuses(method: str) -> None:
    if method in NOT_ON_CONV1D:
        with pytest.raises(UsageError) as on_cpu:
            real(GPT2, method)
        with pytest.raises(UsageError) as on_meta:
            peaks.trace(setup(GPT2, method))
        assert on_cpu.value.what == on_meta.value.what
        return
    cpu = real(GPT2, method)
    found = peaks.trace(setup(GPT2, method))
    assert (found.trainable_params, found.total_params) == (trainable_params(cpu), total_params(cpu))


@pytest.mark.parametrize("method", TRACED)
def test_its_file_has_the_bytes_of_the_real_one(method: str, tmp_path: Path) -> None:
    cpu = real(LLAMA, method)
    cpu.save_pretrained(tmp_path)  # type: ignore[operator]
    size = (tmp_path / "adapter_model.safetensors").stat().st_size
    assert adapter_file_bytes(build(setup(LLAMA, method))) == size
    assert json.loads((tmp_path / "adapter_config.json").read_text())


@pytest.mark.parametrize("method", TRACED)
def test_gradient_checkpointing_lowers_the_peak_or_is_refused(method: str, traces: dict[str, Trace]) -> None:
    asked = setup(LLAMA, method, gradient_checkpointing=True)
    if method in REFUSES_CHECKPOINTING:
        with pytest.raises(UsageError):
            peaks.trace(asked)
    elif method in traces:
        assert peaks.trace(asked).buckets.activations < traces[method].buckets.activations


# -- experts ---------------------------------------------------------------------------------------

MIXTRAL: dict[str, Any] = LLAMA | {
    "model_type": "mixtral",
    "num_hidden_layers": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}


def targets_of(method: str, targets: Any) -> set[str]:
    model = build(setup(MIXTRAL, method, target_modules=targets))
    return {n.split(".lora_")[0].rpartition(".")[2] for n in trained(model)}


def test_all_linear_leaves_out_experts_which_are_no_linear_layers() -> None:
    attention = {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert targets_of("lora", "all-linear") == attention
    assert targets_of("lora", None) == {"q_proj", "v_proj"}
    cpu = real(MIXTRAL, "lora", target_modules="all-linear")
    meta = build(setup(MIXTRAL, "lora", target_modules="all-linear"))
    # PEFT 0.21 would add the fused expert parameters of Mixtral to its own `all-linear`.
    assert trained(meta) == trained(cpu)


def test_experts_are_hit_by_name() -> None:
    assert targets_of("lora", ("w1", "w2", "w3")) == {"w1", "w2", "w3"}


# -- those that are not ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", NOT_TRACED)
def test_what_is_not_traced_is_refused_with_the_reason(method: str) -> None:
    with pytest.raises(UsageError, match=f"{method} cannot be priced") as caught:
        peaks.trace(setup(LLAMA, method))
    assert NOT_TRACED[method] in caught.value.what


@pytest.mark.parametrize("method", NOT_TRACED)
def test_what_is_not_traced_cannot_be(method: str) -> None:
    """Nobody has to look at the table again when PEFT learns to do without values: this fails then."""
    kind = tuner(method).peft_type
    assert kind is not None
    model = load(setup(LLAMA, method))
    ids = torch.zeros(2, 16, dtype=torch.int64, device="meta")
    with pytest.raises((UsageError, RuntimeError, NotImplementedError)), adapters.attaching(kind):
        attached = wrap(model, method, AdapterOptions()).model
        attached(input_ids=ids, labels=ids, use_cache=False).loss.backward()
