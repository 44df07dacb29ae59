"""A trace of five layers made longer is the trace of all of them, in every byte and every operation."""

from typing import Any

import pytest

from rankwise.observe.catalogue import find_architecture
from rankwise.records.setup import Setup
from rankwise.trace.build import shortened
from rankwise.trace.extend import TRACED
from tests.trace.families import FAMILIES, UNLIKE, setup, traced

CKPT: dict[str, Any] = {"gradient_checkpointing": True}
FLASH: dict[str, Any] = {"attn_implementation": "flash"}
EAGER: dict[str, Any] = {"attn_implementation": "eager"}
FSDP: dict[str, Any] = {"parallel": "fsdp", "world_size": 4}
# Every family once, and along the way every method, optimizer, loss, stack, kind of attention and of sharding.
ALIKE: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "full", {}),
    ("llama", "full", {"gradient_accumulation_steps": 3, "optim": "adamw_torch_fused"}),
    ("llama", "full", {"loss": "upcast-logits", **CKPT, **FLASH, **FSDP}),
    ("llama", "full", {"dtype": "fp32", "autocast": "bf16", "optim": "sgd"}),
    ("llama", "full", {"optim": "adafactor"}),
    ("llama", "full", {"optim": "adamw_bnb_8bit"}),
    ("llama", "lora", {"lora_dropout": 0.1, **EAGER}),
    ("llama", "qlora", {"kbit_upcast": True, "loss": "shifted-logits", **FLASH}),
    ("llama", "qlora", {"loss": "chunked", "double_quant": False}),
    ("llama", "lora-8bit", {}),
    ("llama", "gptq-lora", {"dtype": "fp16", "loss": "fast-ce", "stack": "4.48", **FLASH}),
    ("llama", "dora", {"adapter_dtype": "bf16", **CKPT}),
    ("llama", "bottleneck", {}),
    ("llama", "ia3", {"r": None}),
    ("llama", "lora", {"parallel": "ddp", "world_size": 2, "loss": "labelled", "labelled_share": 0.25}),
    ("llama", "full", {"parallel": "zero1", "world_size": 2}),
    ("llama", "full", {"parallel": "zero2", "world_size": 4, "offload": "optimizer"}),
    ("llama", "full", {"parallel": "zero3", "world_size": 4, **CKPT}),
    ("mistral", "lora", {"stack": "4.45", "loss": "upcast-logits", **CKPT, **FLASH, **FSDP}),
    ("mistral", "full", {"loss": "fast-ce", "autocast": "bf16", **FLASH, **FSDP}),
    ("qwen3", "lora", CKPT),
    ("gemma2", "full", EAGER),
    ("gemma3", "qlora", FLASH),
    ("phi3", "lora", {"loss": "fused-linear", "gradient_accumulation_steps": 3, **FLASH}),
    ("granite", "lora", {"loss": "upcast-logits", **FLASH, **CKPT}),
    ("olmo2", "full", {"device": "gpu-7.5", "dtype": "fp16"}),
    ("mixtral", "full", {}),
    ("mixtral", "qlora", {"target_modules": ("q_proj", "v_proj"), **CKPT}),
    ("gpt2", "lora", {"target_modules": ("c_attn",), **CKPT}),
    ("gpt_neox", "full", EAGER),
    ("falcon", "lora", {"target_modules": ("query_key_value",), **EAGER}),
    ("bloom", "full", CKPT),
    ("opt", "lora", {"target_modules": ("q_proj", "v_proj"), "gradient_accumulation_steps": 3}),
]
FALLING_BACK: list[tuple[str, str, dict[str, Any]]] = [
    ("deepseek_v3", "full", EAGER),
    ("qwen3_moe", "lora", {"target_modules": ("q_proj",), **CKPT}),
    ("gemma3", "full", {"max_length": 24}),  # longer than the window: those layers get a mask, and another kernel
]


def named(cases: list[tuple[str, str, dict[str, Any]]]) -> list[Any]:
    return [pytest.param(f, m, o, id=f"{f}-{m}-{'-'.join(str(v) for v in o.values())}") for f, m, o in cases]


def test_the_matrix_has_every_family() -> None:
    assert {family for family, _, _ in ALIKE} == set(FAMILIES)
    assert set(UNLIKE) <= {family for family, _, _ in FALLING_BACK}


@pytest.mark.parametrize(("family", "method", "options"), named(ALIKE))
def test_extended_equals_whole(family: str, method: str, options: dict[str, Any]) -> None:
    of = setup(family, method, **options)
    extended, short_runs = traced(of)
    whole, whole_runs = traced(of, whole=True)
    assert short_runs == [TRACED]
    assert whole_runs == [None]
    assert extended == whole


def test_a_prefix_lies_in_one_tensor_for_all_layers() -> None:
    assert traced(setup("llama", "prefix", num_virtual_tokens=4))[1] == [None]


@pytest.mark.parametrize(("family", "method", "options"), named(FALLING_BACK))
def test_layers_that_differ_are_traced_in_full(family: str, method: str, options: dict[str, Any]) -> None:
    of = setup(family, method, **options)
    found, runs = traced(of)
    assert runs == [TRACED, None]
    assert found == traced(of, whole=True)[0]


def test_every_kind_of_inner_layer_is_in_a_short_trace() -> None:
    kinds = (["sliding"] * 5 + ["full"]) * 4
    assert shortened(kinds, 5) == ["sliding", "sliding", "full", "sliding", "full"]
    assert shortened(["full", *["sliding"] * 6], 5) == ["full", *["sliding"] * 4]
    assert shortened(["full", "full", "sliding"], 5) == ["full", "full", "sliding"]


@pytest.mark.prove
@pytest.mark.parametrize(
    ("model", "method", "options"),
    [
        ("llama-2-70b", "qlora", {"r": 16, **CKPT, **FLASH}),
        ("mixtral-8x7b", "lora", {"r": 16, "target_modules": ("q_proj", "v_proj"), **FLASH}),
        ("gemma-2-9b", "full", {**CKPT, **EAGER}),
    ],
)
def test_extended_equals_whole_on_published_models(model: str, method: str, options: dict[str, Any]) -> None:
    found = find_architecture(model)
    assert found is not None
    values = {"dtype": "bf16", "per_device_train_batch_size": 2, "max_length": 2048, "device": "gpu-8.0"}
    of = Setup(config=found.config, method=method, **(values | options))
    extended, runs = traced(of)
    assert runs == [TRACED]
    assert extended == traced(of, whole=True)[0]
