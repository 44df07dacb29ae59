"""PiSSA: the base and the adapter add up to the weights; what is saved belongs on the untouched base."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.nn.functional import kl_div
from transformers import AutoModelForCausalLM

from rankwise.errors import RunError
from rankwise.model.attach import attach, load_adapter
from rankwise.model.likelihood import final_logits
from rankwise.model.load import load_base
from rankwise.model.pissa import ADAPTER
from rankwise.model.trained import restore_weights, save_weights
from tests.tiny import tiny_config, tiny_gpt2, tiny_llama

PROMPTS = [[1, 5, 9, 40], [7, 8, 30]]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), dtype="fp32")


def attached(folder: Path, dtype: Any = "fp32", resumed: Path | None = None, **changes: Any) -> Any:
    config = tiny_config("pissa", r=8, lora_alpha=16.0, dtype=dtype, **changes)
    return attach(load_base(folder, dtype=dtype), config, resumed=resumed)


def moved(model: Any) -> Any:
    """As after training: every trained tensor elsewhere."""
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("how", [None, "pissa_niter_8"])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_it_begins_where_the_base_is(tmp_path: Path, make: Any, how: str | None) -> None:
    folder = make(tmp_path, dtype="fp32")
    model = attached(folder, init_lora_weights=how)
    base = load_base(folder, dtype="fp32")
    assert torch.allclose(final_logits(model, PROMPTS), final_logits(base, PROMPTS), atol=2e-3)
    weights = dict(base.named_parameters())
    residual = {n: p for n, p in model.get_base_model().named_parameters() if n.endswith("base_layer.weight")}
    assert len(residual) in (14, 8)
    for name, kept in residual.items():
        before = torch.linalg.svdvals(weights[name.replace(".base_layer", "")])
        largest = torch.linalg.svdvals(kept)[0]
        assert largest < before[0] and torch.allclose(largest, before[8], rtol=0.1 if how else 1e-3)


def test_base_and_adapter_add_up_to_bf16_weights_but_for_one_rounding(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    model, base = attached(folder, "bf16"), load_base(folder, dtype="bf16")
    for name, module in model.base_model.model.named_modules():
        if hasattr(module, "lora_A"):
            whole = module.get_base_layer().weight.float() + module.get_delta_weight("default").float()
            weight = base.get_submodule(name).weight.float()
            rounding = module.get_base_layer().weight.float().abs() * 2**-8
            assert bool(((whole - weight).abs() <= rounding + 1e-6).all())


def test_what_is_saved_loads_with_plain_peft_on_the_plain_base(llama: Path, tmp_path: Path) -> None:
    model = moved(attached(llama))
    save_weights(model, tmp_path, encodes=False)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32), tmp_path).eval()
    trained = final_logits(model, PROMPTS)
    assert torch.allclose(final_logits(plain, PROMPTS), trained, atol=2e-3)
    assert not torch.allclose(trained, final_logits(load_base(llama, dtype="fp32"), PROMPTS), atol=0.1)
    tensors = {n: t if "lora_A" in n else t * (torch.arange(16) < 8) for n, t in load_file(tmp_path / ADAPTER).items()}
    save_file(tensors, tmp_path / ADAPTER, {"format": "pt"})  # a conversion that forgot the first values
    wrong = final_logits(load_adapter(load_base(llama, dtype="fp32"), tmp_path), PROMPTS)
    assert kl_div(wrong.log_softmax(1), trained.log_softmax(1), log_target=True, reduction="batchmean") > 0.5
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (16, 32.0, True)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_checkpoint_rebuilds_residual_and_adapter_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    folder, saved = tiny_llama(tmp_path / "base", dtype=dtype), tmp_path / "saved"  # type: ignore[arg-type]
    model = moved(attached(folder, dtype))
    save_weights(model, saved, encodes=False)
    again = attached(folder, dtype, resumed=saved)
    restore_weights(again, saved)
    assert [n for n, _ in again.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_an_adapter_of_another_decomposition_is_not_put_on_this_residual(llama: Path, tmp_path: Path) -> None:
    save_weights(attached(llama), tmp_path, encodes=False)
    tensors = load_file(tmp_path / ADAPTER)
    name = next(iter(tensors))
    tensors[name] = tensors[name] * 1.001
    save_file(tensors, tmp_path / ADAPTER, {"format": "pt"})
    with pytest.raises(RunError, match="another residual of the base"):
        restore_weights(attached(llama), tmp_path)
