"""Facts against the real model, and every fault of a folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from rankwise.errors import ModelError
from rankwise.observe.model import observe_model
from rankwise.text import hashes
from rankwise.text.template import ChatText
from tests.tiny import tiny_gpt2, tiny_llama


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_facts_of_a_llama(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m")
    facts = observe_model(str(folder))
    shapes = {(s.name, s.out_features, s.in_features, s.count) for s in facts.linears}
    assert shapes == {
        ("q_proj", 32, 32, 2),
        ("k_proj", 16, 32, 2),
        ("v_proj", 16, 32, 2),
        ("o_proj", 32, 32, 2),
        ("gate_proj", 64, 32, 2),
        ("up_proj", 64, 32, 2),
        ("down_proj", 32, 64, 2),
    }
    assert (facts.architecture, facts.dtype, facts.license) == ("LlamaForCausalLM", "bf16", "apache-2.0")
    assert (facts.intermediate_size, facts.max_position_embeddings, facts.vocab_size) == (64, 256, 320)
    assert facts.weight_bytes == 2 * facts.total_params and facts.tie_word_embeddings
    assert facts.template_hash == ChatText.from_folder(folder).template_hash


def test_facts_of_a_gpt2_are_untransposed(tmp_path: Path) -> None:
    facts = observe_model(str(tiny_gpt2(tmp_path / "m")))
    shapes = {(s.name, s.out_features, s.in_features, s.count) for s in facts.linears}
    assert shapes == {("c_attn", 96, 32, 2), ("c_proj", 32, 32, 2), ("c_fc", 128, 32, 2), ("c_proj", 32, 128, 2)}
    assert facts.license is None and facts.max_position_embeddings == 256


def test_shards_and_a_second_copy_of_a_tied_head(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m")
    whole = observe_model(str(folder))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({n: tensors[n] for n in part}, folder / file)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {n: file for file, part in parts.items() for n in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    sharded = observe_model(str(folder))
    assert (sharded.total_params, sharded.linears) == (whole.total_params, whole.linears)
    assert sharded.weights_hash != whole.weights_hash


def test_nested_text_config(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"architectures": ["Outer"], "text_config": config}))
    facts = observe_model(str(folder))
    assert (facts.architecture, facts.num_hidden_layers, facts.hidden_size) == ("Outer", 2, 32)


def test_hash_follows_content_and_is_remembered(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_llama(tmp_path / "m")
    first = observe_model(str(folder)).weights_hash
    assert observe_model(str(tiny_llama(tmp_path / "n"))).weights_hash == first
    monkeypatch.setattr(hashes, "hash_file", lambda _: pytest.fail("read again"))
    assert observe_model(str(folder)).weights_hash == first
    monkeypatch.undo()
    monkeypatch.setenv("RANKWISE_CACHE", str(cache))
    (cache / "hashes.json").write_text("{")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    os.utime(folder / "model.safetensors", ns=(7, 7))
    assert observe_model(str(folder)).weights_hash != first


def test_cut_file(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-10])
    with pytest.raises(ModelError, match="damaged"):
        observe_model(str(folder))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "stored quantised"),
        ({"architectures": None}, "names no architecture"),
        ({"hidden_size": None}, "no hidden_size"),
    ],
)
def test_configs_that_cannot_be_used(tmp_path: Path, change: dict[str, object], says: str) -> None:
    folder = tiny_llama(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=says):
        observe_model(str(folder))


def test_observe_is_torch_free(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m")
    code = (
        "import sys; from rankwise.observe import data, devices, model; model.observe_model(sys.argv[1]);"
        "print([m for m in ('torch', 'transformers', 'peft', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
