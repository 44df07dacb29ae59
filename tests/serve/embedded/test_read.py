"""What is no adapter for this base, or could not be mixed with others' rows, is refused with its reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoHaConfig, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from rankwise.model.load import load_base
from rankwise.serve.embedded.read import read_adapter
from rankwise.serve.engine import AdapterRefused
from tests.serve.embedded.built import build
from tests.tiny import tiny_llama

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("read")
    build(tiny_llama(place / "base", dtype="fp32"), place / "lora", "lora", 0)
    return place


@pytest.fixture(scope="module")
def base(place: Path) -> PreTrainedModel:
    return load_base(place / "base", dtype="fp32")


def saved(place: Path, config: Any) -> None:
    get_peft_model(load_base(place.parent / "base", dtype="fp32"), config).save_pretrained(place)


def edited(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)

    return edit


def spoiled(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state[min(state)][0, 0] = float("nan")
    return state


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (edited(peft_type="LOHA"), "LOHA are not served"),
        (edited(modules_to_save=["lm_head"]), "modules_to_save"),
        (edited(trainable_token_indices=[1, 2]), "trainable_token_indices"),
        (edited(bias="all"), "biases of the base"),
        (edited(init_lora_weights="pissa"), "beside a changed base"),
        (edited(target_modules=["no_such"]), "does not fit"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "damaged"),
        (lambda f: (f / "adapter_config.json").write_text("[]"), "damaged"),
        (lambda f: (f / WEIGHTS).rename(f / "adapter_model.bin"), f"{WEIGHTS} is missing"),
        (lambda f: (f / WEIGHTS).write_bytes(b"\x80\x04" * 50), "does not fit"),
        (tensors(lambda s: {k: v for k, v in s.items() if k != min(s)}), "missing, unknown or of another shape"),
        (tensors(lambda s: {**s, "extra": torch.zeros(1)}), "missing, unknown or of another shape"),
        (tensors(lambda s: {**s, min(s): torch.zeros(4, 999)}), "missing, unknown or of another shape"),
        (tensors(spoiled), "not finite"),
    ],
)
def test_refused(place: Path, base: PreTrainedModel, tmp_path: Path, change: Callable[[Path], None], why: str) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(place / "lora", folder)
    change(folder)
    with pytest.raises(AdapterRefused, match=why):
        read_adapter("clinic@1", folder, base)


@pytest.mark.parametrize(
    "config",
    [
        LoHaConfig(target_modules=["q_proj"]),
        LoraConfig(target_modules=["q_proj", "embed_tokens"]),
        LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]),
        LoraConfig(target_modules=["q_proj"], trainable_token_indices=[1, 2]),
        LoraConfig(target_modules=["q_proj"], layer_replication=[(0, 2), (0, 2)]),
    ],
)
def test_what_peft_writes_and_we_cannot_mix(place: Path, base: PreTrainedModel, config: Any) -> None:
    folder = place / "other"
    shutil.rmtree(folder, ignore_errors=True)
    saved(folder, config)
    with pytest.raises(AdapterRefused):
        read_adapter("clinic@1", folder, base)


def test_an_adapter_of_another_base(place: Path, base: PreTrainedModel) -> None:
    build(tiny_llama(place / "wider", hidden=64, dtype="fp32"), place / "for-wider", "lora", 0)
    with pytest.raises(AdapterRefused, match="another shape"):
        read_adapter("clinic@1", place / "for-wider", base)


def test_bytes_are_those_of_its_tensors(place: Path, base: PreTrainedModel) -> None:
    adapter = read_adapter("clinic@1", place / "lora", base)
    assert adapter.bytes == sum(t.numel() * 4 for t in load_file(place / "lora" / WEIGHTS).values())
