"""16-bit weights that compute in fp32: the numbers of a model in fp32, and the weights as they were."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from rankwise.methods import AdapterOptions
from rankwise.model.attach import wrap
from rankwise.model.likelihood import final_logits
from rankwise.model.load import load_base
from rankwise.model.precision import in_fp32
from tests.export.merging import adapter_of, moved
from tests.export.test_merge import CASES, LAYERWISE, NEARLY, SIZES, lora
from tests.tiny import tiny_gpt2, tiny_llama, tiny_llama_untied, tiny_moe

PROMPTS = [[1, 5, 9, 3], [2, 2, 7]]
BASES = {
    "tied": tiny_llama,
    "conv1d": lambda folder: tiny_gpt2(folder, hidden=64),
    "experts": lambda folder: tiny_moe(folder, "mixtral"),
}


@pytest.mark.parametrize("kind", BASES)
def test_it_computes_what_the_model_in_fp32_does(tmp_path: Path, kind: str) -> None:
    folder = BASES[kind](tmp_path / "base")
    half, full = load_base(folder, dtype="bf16"), load_base(folder, dtype="fp32")
    full.load_state_dict(half.state_dict())
    stored = {name: p.data_ptr() for name, p in half.named_parameters()}
    apart = final_logits(half, PROMPTS)
    with in_fp32(half):
        assert torch.equal(final_logits(half, PROMPTS), final_logits(full, PROMPTS))
        assert all(p.dtype == torch.bfloat16 for p in half.parameters()), "between two passes nothing is raised"
    assert {name: p.data_ptr() for name, p in half.named_parameters()} == stored
    assert torch.equal(final_logits(half, PROMPTS), apart) and not torch.equal(apart, final_logits(full, PROMPTS))


@pytest.mark.parametrize("four_bit", [False, True])
def test_an_adapter_does_too(tmp_path: Path, four_bit: bool) -> None:
    """4-bit layers multiply in bf16, and what lies between them is nearer to fp32 for all that."""
    base = tiny_llama(tmp_path / "base", hidden=64)
    adapter = adapter_of(base, tmp_path / "adapter", lora())
    half: Any = load_base(base, dtype="bf16", four_bit=four_bit)
    values = (load_base(base, dtype="bf16", four_bit=True).dequantize() if four_bit else half).state_dict()
    full = load_base(base, dtype="fp32")
    full.load_state_dict(values)
    tuned, expected = (PeftModel.from_pretrained(m, adapter) for m in (half, full))
    wanted, as_run = final_logits(expected, PROMPTS), final_logits(tuned, PROMPTS)
    with in_fp32(tuned):
        precise = final_logits(tuned, PROMPTS)
    assert float((precise - wanted).norm()) < float((as_run - wanted).norm()) * (0.9 if four_bit else 1e-4)


def apart(base: Path, adapter: Path) -> tuple[float, float]:
    """Logits of an adapter over bf16 weights against the same over fp32: with our arithmetic, and as it is run."""
    expected, tuned = (
        PeftModel.from_pretrained(load_base(base, dtype=dtype), adapter).eval() for dtype in ("fp32", "bf16")
    )
    expected.load_state_dict(tuned.state_dict())  # some tuners keep their own numbers in 16 bits, too
    wanted, as_run = final_logits(expected, PROMPTS), final_logits(tuned, PROMPTS)
    with in_fp32(tuned):
        precise = final_logits(tuned, PROMPTS)
    return float((precise - wanted).norm() / wanted.norm()), float((as_run - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", [*CASES, *NEARLY])
def test_every_kind_of_layer_that_peft_wraps(tmp_path: Path, name: str) -> None:
    """DoRA and rows of new tokens take the weights of the layer below without calling it."""
    kind, config = (CASES | NEARLY)[name]
    makers: dict[str, Any] = {"tied": tiny_llama, "untied": tiny_llama_untied}
    base = tiny_gpt2(tmp_path / "b", hidden=64) if kind == "gpt2" else makers[kind](tmp_path / "b", **SIZES)
    precise, as_run = apart(base, adapter_of(base, tmp_path / "adapter", config))
    assert precise < 1e-5 and as_run > 1e-3


@pytest.mark.parametrize("method", LAYERWISE)
def test_every_tuner(tmp_path: Path, method: str) -> None:
    base, adapter = tiny_llama(tmp_path / "base", **SIZES), tmp_path / "adapter"
    wrap(load_base(base, dtype="fp32"), method, AdapterOptions(), seed=0).model.save_pretrained(adapter)
    file = adapter / "adapter_model.safetensors"
    save_file({name: moved(t) for name, t in load_file(file).items()}, file, {"format": "pt"})
    precise, as_run = apart(base, adapter)
    rounds_itself = method == "unilora"  # its scales are made in 16 bits in the forward pass, too
    assert precise < (1e-3 if rounds_itself else 1e-5) and as_run > 1e-3


def test_an_error_inside_leaves_the_weights_as_they_were(tmp_path: Path) -> None:
    model: Any = load_base(tiny_llama(tmp_path / "base"), dtype="bf16")
    with in_fp32(model), pytest.raises(IndexError):
        model(input_ids=torch.tensor([[10**6]]))
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
