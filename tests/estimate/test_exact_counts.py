"""Counts and bytes of the field that follow from shapes alone, through the real model classes and the real PEFT on
`meta`: trained parameters of published configurations, 4-bit and 8-bit bases, sizes of adapter files.
"""

from functools import cache
from typing import Any

import pytest
from torch import nn

from rankwise.model.adapterfile import adapter_bytes
from rankwise.model.attach import total_params, trainable_params
from rankwise.observe.catalogue import find_architecture
from rankwise.records import Setup
from rankwise.trace.adapterfile import adapter_file
from rankwise.trace.build import build

QV = ("q_proj", "v_proj")
QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")


def setup(architecture: str, method: str, r: int | None = None, **changes: Any) -> Setup:
    found = find_architecture(architecture)
    assert found is not None
    content: dict[str, Any] = {
        "config": found.config,
        "method": method,
        "r": r,
        "target_modules": None if method == "full" else "all-linear",
        "dtype": "bf16",
        "per_device_train_batch_size": 1,
        "max_length": 8,
    }
    return Setup.model_validate(content | changes)


@cache
def base_params(architecture: str) -> int:
    return total_params(build(setup(architecture, "full")))


def bytes_of_the_base(model: nn.Module) -> int:
    """Frozen tensors with the scales of their blocks."""
    frozen = [p for p in model.parameters() if not p.requires_grad]
    return sum(p.numel() * p.element_size() + _scales(getattr(p, "quant_state", None)) for p in frozen)


def _scales(state: Any) -> int:
    """Of a bitsandbytes weight: its block scales and, where they are quantised once more, theirs."""
    if state is None:
        return 0
    size = state.absmax.numel() * state.absmax.element_size()
    return int(size) + (_scales(state.state2) if state.nested else 0)


# -- trained parameters ---------------------------------------------------------------------------

COUNTS = [
    ("llama-3-8b", 16, "all-linear", 41_943_040, 8_072_204_288),
    ("llama-3-8b", 32, "all-linear", 83_886_080, 8_114_147_328),  # what the lesson prints for r=16
    ("llama-3-8b", 64, "all-linear", 167_772_160, 8_198_033_408),  # what it prints for r=64 on four of the seven
    ("llama-3-8b", 64, QKVO, 54_525_952, 8_084_787_200),
    ("llama-3-8b", 16, QV, 6_815_744, 8_037_076_992),
    ("llama-2-7b", 16, QV, 8_388_608, 6_746_804_224),
]


@pytest.mark.parametrize(("architecture", "r", "targets", "trained", "total"), COUNTS)
def test_lora_trains_as_many_parameters_as_published(
    architecture: str, r: int, targets: str | tuple[str, ...], trained: int, total: int
) -> None:
    model = build(setup(architecture, "lora", r, target_modules=targets))
    assert (trainable_params(model), total_params(model)) == (trained, total)
    assert base_params(architecture) == total - trained


def test_llama_3_8b_has_its_published_parameters() -> None:
    assert base_params("llama-3-8b") == 8_030_261_248


@pytest.mark.parametrize(
    ("architecture", "per_rank"),
    [
        ("llama-3-8b", 2_621_440),
        ("llama-3-70b", 12_943_360),
        ("llama-3.2-3b", 1_519_616),
        ("llama-3.2-1b", 704_512),
        ("smollm2-135m", 305_280),
    ],
)
def test_parameters_of_one_rank_on_all_linear_layers(architecture: str, per_rank: int) -> None:
    assert trainable_params(build(setup(architecture, "lora", 1))) == per_rank


# -- quantised bases ------------------------------------------------------------------------------

QUANTISED = [
    # architecture, method, GB as loaded, GB after PEFT's k-bit preparation
    ("llama-3-8b", "qlora", 5.7, 7.8),
    ("llama-3-70b", "qlora", 39.5, 43.7),
    ("codellama-34b", "qlora", 18.2, None),
    ("llama-3-70b", "lora-8bit", 72.7, None),
]


@pytest.mark.parametrize(("architecture", "method", "loaded", "prepared"), QUANTISED)
def test_a_quantised_base_has_the_published_bytes(
    architecture: str, method: str, loaded: float, prepared: float | None
) -> None:
    def base(**changes: Any) -> float:
        return bytes_of_the_base(build(setup(architecture, method, 1, target_modules=("q_proj",), **changes))) / 1e9

    assert round(base(), 1) == loaded
    if prepared is not None:
        # With fp16 arithmetic everything that is not 4-bit stays as PEFT raised it.
        assert round(base(dtype="fp16", kbit_upcast=True), 1) == prepared


# -- adapter files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("r", "targets", "fp32", "bf16"),
    [(16, "all-linear", 167.8, 83.9), (64, QKVO, 218.1, 109.1)],
)
def test_an_adapter_file_of_llama_3_8b(r: int, targets: Any, fp32: float, bf16: float) -> None:
    for dtype, mega in (("fp32", fp32), ("bf16", bf16)):
        asked = setup("llama-3-8b", "lora", r, target_modules=targets, adapter_dtype=dtype)
        tensors, file = adapter_bytes(build(asked)), adapter_file(asked)
        assert round(tensors / 1e6, 1) == mega
        assert file is not None and 0 < file - tensors < 80_000  # the header: 150 bytes a tensor


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_pefts_published_file_to_the_byte(method: str) -> None:
    """LoRA r=32 on q and v of Llama-3.2-3B (huggingface/peft, method_comparison/MetaMathQA)."""
    assert adapter_file(setup("llama-3.2-3b", method, 32, target_modules=QV)) == 36_715_216


def test_full_fine_tuning_has_no_adapter_file() -> None:
    assert adapter_file(setup("llama-3.2-3b", "full")) is None
