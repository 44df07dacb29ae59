"""Our own adapter: the identity until trained, exact in its count, and the same after a round through its files."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from rankwise.errors import ModelError, UsageError
from rankwise.methods import AdapterOptions
from rankwise.methods.bottleneck import params_per_adapter
from rankwise.model.adapterfile import adapter_bytes
from rankwise.model.attach import trainable_params, untouched, wrap
from rankwise.model.bottleneck import Bottleneck, BottleneckModel, attach_bottleneck, load_bottleneck
from rankwise.model.likelihood import final_logits
from rankwise.model.load import load_base
from tests.tiny import tiny_gpt2, tiny_llama

PROMPTS = [[1, 5, 9, 40], [7, 8]]


@pytest.fixture(params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny_llama(tmp_path, layers=3) if request.param == "llama" else tiny_gpt2(tmp_path, layers=3)


def disturbed(model: BottleneckModel) -> BottleneckModel:
    for module in model.modules():
        if isinstance(module, Bottleneck):
            nn.init.normal_(module.up.weight)
    return model


@pytest.mark.parametrize(("placement", "places"), [("pfeiffer", 1), ("houlsby", 2)])
def test_it_counts_what_its_formula_says(folder: Path, placement: str, places: int) -> None:
    options = AdapterOptions(bottleneck_size=5, more={"placement": placement})
    model = wrap(load_base(folder, dtype="fp32"), "bottleneck", options).model
    assert trainable_params(model) == 3 * places * params_per_adapter(32, 5)
    assert adapter_bytes(model) == 4 * trainable_params(model)
    assert all("bottleneck" in name for name, p in model.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby"])
def test_it_starts_as_the_identity(folder: Path, placement: str) -> None:
    before = final_logits(load_base(folder, dtype="fp32"), PROMPTS)
    model = attach_bottleneck(load_base(folder, dtype="fp32"), 4, placement)  # type: ignore[arg-type]
    assert torch.equal(final_logits(model, PROMPTS), before)
    changed = final_logits(disturbed(model), PROMPTS)
    assert not torch.allclose(changed, before)
    with untouched(model):
        assert torch.equal(final_logits(model, PROMPTS), before)
    assert torch.equal(final_logits(model, PROMPTS), changed)


def test_the_gradient_reaches_every_adapter_and_nothing_else(folder: Path) -> None:
    model = disturbed(attach_bottleneck(load_base(folder, dtype="fp32"), 4, "houlsby")).train()
    ids = torch.tensor([[1, 5, 9, 40, 7, 2]])
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (".bottleneck." in name), name
        assert parameter.grad is None or parameter.grad.abs().sum() > 0, name


def test_it_can_learn(folder: Path) -> None:
    model = attach_bottleneck(load_base(folder, dtype="fp32"), 8).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    ids = torch.tensor([[1, 5, 9, 40, 7, 2]])
    losses = []
    for _ in range(30):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby"])
def test_saved_and_loaded_it_is_the_same(folder: Path, tmp_path: Path, placement: str) -> None:
    model = disturbed(attach_bottleneck(load_base(folder, dtype="fp32"), 6, placement))  # type: ignore[arg-type]
    model.save_pretrained(tmp_path / "adapter")
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    loaded = load_bottleneck(load_base(folder, dtype="fp32"), tmp_path / "adapter")
    assert torch.equal(final_logits(loaded, PROMPTS), final_logits(model, PROMPTS))
    assert trainable_params(loaded) == 0


def test_another_base_or_another_kind_is_refused(tmp_path: Path) -> None:
    small = tiny_llama(tmp_path / "small")
    attach_bottleneck(load_base(small, dtype="fp32"), 6).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match="does not fit this base"):
        load_bottleneck(load_base(tiny_llama(tmp_path / "deep", layers=3), dtype="fp32"), tmp_path / "adapter")
    written = tmp_path / "adapter" / "adapter_config.json"
    written.write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ModelError, match="holds no bottleneck adapter"):
        load_bottleneck(load_base(small, dtype="fp32"), tmp_path / "adapter")


@pytest.mark.parametrize("size", [0, 33])
def test_a_width_is_between_one_and_the_hidden_size(tmp_path: Path, size: int) -> None:
    with pytest.raises(UsageError, match=f"bottleneck size {size}"):
        attach_bottleneck(load_base(tiny_llama(tmp_path), dtype="fp32"), size)


def test_an_unknown_placement_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="placement after"):
        attach_bottleneck(load_base(tiny_llama(tmp_path), dtype="fp32"), 4, "after")  # type: ignore[arg-type]
