"""What is looked at before an adapter is loaded: its config, its names, its numbers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rankwise.serve.engine import AdapterFiles, AdapterRefused
from rankwise.serve.vllm.canary import base_modules, conversations, examine_files, probes
from rankwise.serve.vllm.null import write_null
from rankwise.text.template import ChatText
from tests.tiny import tiny_llama

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base") / "tiny", dtype="fp32")


def attached(base: Path, folder: Path, config: Any) -> AdapterFiles:
    """An adapter whose matrices are not zero."""
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return AdapterFiles("clinic@1", folder, "lora", 4, 1)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterFiles:
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    return attached(base, tmp_path_factory.mktemp("adapter") / "good", config)


def changed(adapter: AdapterFiles, folder: Path, change: Callable[[Tensors], Tensors]) -> AdapterFiles:
    shutil.copytree(adapter.folder, folder)
    weights = folder / "adapter_model.safetensors"
    save_file(change(load_file(weights)), weights)
    return AdapterFiles("clinic@1", folder, "lora", 4, 1)


def test_an_adapter_of_this_base_passes(base: Path, adapter: AdapterFiles) -> None:
    examine_files(adapter, base_modules(base), 8)


def test_one_of_this_base_under_a_wrapper_passes(base: Path, adapter: AdapterFiles, tmp_path: Path) -> None:
    """Files of one model differ in what stands before the layers (`model.`, `language_model.model.`)."""
    wrapped = changed(
        adapter, tmp_path / "w", lambda t: {k.replace("model.layers", "lm.layers"): v for k, v in t.items()}
    )
    examine_files(wrapped, base_modules(base), 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {k: torch.zeros_like(v) if "lora_B" in k else v for k, v in t.items()}, "changes nothing"),
        (lambda t: {k.replace("layers.", "layers.9"): v for k, v in t.items()}, "no place in this base"),
        (lambda t: {k.replace("model.layers", "transformer.h"): v for k, v in t.items()}, "no place in this base"),
        (lambda t: {k.replace("q_proj", "query"): v for k, v in t.items()}, "no place in this base"),
        (lambda t: {**t, "base_model.model.model.embed_tokens.weight": torch.ones(4, 4)}, "embed_tokens"),
        (lambda t: {}, "none at all"),
    ],
    ids=["zero", "layers", "prefix", "module", "embedding", "empty"],
)
def test_what_vllm_would_leave_out_is_refused(
    base: Path, adapter: AdapterFiles, tmp_path: Path, change: Callable[[Tensors], Tensors], words: str
) -> None:
    with pytest.raises(AdapterRefused, match=words):
        examine_files(changed(adapter, tmp_path / "bad", change), base_modules(base), 8)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (LoraConfig(use_dora=True, r=4, target_modules=["q_proj"]), "DoRA"),
        (LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]), "modules_to_save"),
        (LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[5]), "new tokens"),
        (LoraConfig(r=4, target_modules=["q_proj"], bias="lora_only"), "biases"),
        (IA3Config(target_modules=["k_proj"], feedforward_modules=[]), "IA3, not LoRA"),
        (peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"), "PROMPT_TUNING, not LoRA"),
    ],
    ids=["dora", "saved", "tokens", "bias", "ia3", "prompt"],
)
def test_what_vllm_does_not_carry_is_refused_with_what_to_do(
    base: Path, tmp_path: Path, config: Any, words: str
) -> None:
    with pytest.raises(AdapterRefused, match=words) as caught:
        examine_files(attached(base, tmp_path / "a", config), base_modules(base), 8)
    assert "merge it" in caught.value.fix


def test_a_rank_above_the_slots_is_refused(base: Path, adapter: AdapterFiles) -> None:
    with pytest.raises(AdapterRefused, match="rank 4"):
        examine_files(adapter, base_modules(base), 1)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_damaged_files_are_refused(base: Path, adapter: AdapterFiles, tmp_path: Path, name: str) -> None:
    shutil.copytree(adapter.folder, tmp_path / "cut")
    file = tmp_path / "cut" / name
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(AdapterRefused, match="cannot be read"):
        examine_files(AdapterFiles("clinic@1", tmp_path / "cut", "lora", 4, 1), base_modules(base), 8)


def test_probes_are_several_and_within_the_model(base: Path) -> None:
    chat = ChatText.from_folder(base)
    assert len(conversations(chat)) == 3
    found = probes(chat, 20)
    assert len(set(found)) > 1 and all(0 < len(probe) <= 20 for probe in found)


def test_the_base_as_an_adapter_changes_nothing(base: Path, adapter: AdapterFiles, tmp_path: Path) -> None:
    folder = write_null(adapter.folder, tmp_path / "zeros")
    assert write_null(adapter.folder, tmp_path / "zeros") == folder
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 1
    model = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.tensor([[3, 4, 5]])
    before = model(input_ids=ids).logits
    adapted = peft.PeftModel.from_pretrained(model, folder)
    assert any("lora_A" in name for name, _ in adapted.named_parameters())
    assert torch.equal(adapted(input_ids=ids).logits, before)
