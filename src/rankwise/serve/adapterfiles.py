"""What an adapter's files may be before a server reads them: known names, no links, no pickle, within a size; and an
adapter_config.json that loads no code and touches nothing that other tenants share.
"""

import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankwise.errors import AdapterError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TEXTS = frozenset(
    {
        CONFIG,
        "README.md",
        "lineage.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "generation_config.json",
        "vocab.json",
        "merges.txt",
    }
)
KNOWN = TEXTS | {WEIGHTS, "tokenizer.model"}
LEFT_OUT = frozenset({"additional_chat_templates"})  # a server renders with the one template of training
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch.save of today, and of long ago
MOST_CONFIG_BYTES = 1 << 20
MOST_PATTERN = 2_000  # characters of a name, or of a pattern of names
MOST_TEXT_BYTES = 256 << 20  # a tokenizer.json of a large vocabulary has some 20 MB
# Options whose values would import a module by name, train or rewrite weights that all tenants share, or are carried
# out by no engine here.
REFUSED = {
    "megatron_config": "it imports the module that `megatron_core` names",
    "layer_replication": "it changes the layers of the base that all tenants share",
    "target_parameters": "no engine here carries it",
    "alora_invocation_tokens": "no engine here carries it",
    "arrow_config": "no engine here carries it",
    "use_bdlora": "no engine here carries it",
    "use_qalora": "it needs a base quantised in its own way",
    "monteclora_config": "no engine here carries it",
    "kasa_config": "it rewrites the weights of the base that all tenants share",
    "velora_config": "no engine here carries it",
}
PLAIN_BEGINNINGS = (True, False, None, "gaussian", "orthogonal")


def take_in(folder: Path, target: Path, most_bytes: int) -> int:
    """Copy the files of an adapter; what is checked afterwards is the copy, which nobody else writes. Returns bytes.

    Raises:
        AdapterError: a link, a folder, a name or a size that is not taken in.
    """
    left = most_bytes
    for name in _names(folder):
        left -= _copy(folder / name, target / name, left, most_bytes)
    for needed in (CONFIG, WEIGHTS):
        if not (target / needed).is_file():
            raise AdapterError(
                f"{folder} holds no {needed}", expected="an adapter in safetensors, as PEFT's save_pretrained writes it"
            )
    return most_bytes - left


def _names(folder: Path) -> list[str]:
    if folder.is_symlink() or not folder.is_dir():
        raise AdapterError(f"{folder} is no folder", expected="a folder with an adapter's files")
    names = sorted({path.name for path in folder.iterdir()} - LEFT_OUT)
    for name in names:
        if name.lower().endswith(PICKLES):
            raise AdapterError(
                f"{folder / name} may be a pickle, which runs code when it is read",
                expected=f"weights in {WEIGHTS}",
                fix="load it where you trust it and save it again with save_pretrained (safetensors)",
            )
        if name not in KNOWN:
            raise AdapterError(f"{name!r} is no file of an adapter", expected=f"only {', '.join(sorted(KNOWN))}")
    return names


def _copy(source: Path, target: Path, left: int, most_bytes: int) -> int:
    """Bytes of one regular file. Not through a link, and no further than `left`, however long it says it is."""
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise AdapterError(f"{source} is not read: {error.strerror}", expected="a plain file, no link") from None
    with os.fdopen(handle, "rb") as file, target.open("xb") as copy:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise AdapterError(f"{source} is no plain file")
        written = 0
        while block := file.read(min(1 << 20, left - written + 1)):
            written += len(block)
            if written > left:
                raise AdapterError(
                    f"the files of {source.parent} are larger than {most_bytes / 1e6:,.0f} MB",
                    fix="train with a smaller rank, or raise the limit with --max-mb",
                )
            copy.write(block)
        return written


def require_texts(folder: Path) -> None:
    """Every text is UTF-8, every JSON file JSON. Raises AdapterError."""
    for path in sorted(folder.iterdir()):
        if path.name in TEXTS:
            if path.stat().st_size > MOST_TEXT_BYTES:
                raise AdapterError(f"{path.name} has {path.stat().st_size / 1e6:,.0f} MB")
            try:
                text = path.read_text(encoding="utf-8")
                if path.suffix == ".json":
                    json.loads(text)
            except (ValueError, RecursionError):
                kind = "JSON" if path.suffix == ".json" else "UTF-8 text"
                raise AdapterError(f"{path.name} is not {kind}") from None


def read_config(folder: Path, served: frozenset[str], max_rank: int) -> dict[str, Any]:
    """adapter_config.json, where a server may carry it out.

    Raises:
        AdapterError: not a PEFT configuration, a type that no engine serves, a rank above `max_rank`, or an option that
            loads code or changes the base.
    """
    path = folder / CONFIG
    if path.stat().st_size > MOST_CONFIG_BYTES:
        raise AdapterError(f"{CONFIG} has {path.stat().st_size / 1e6:,.1f} MB", expected="a few kB")
    config: Any = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise AdapterError(f"{CONFIG} is no JSON object", expected="a configuration of PEFT's save_pretrained")
    kind = config.get("peft_type", config.get("type"))
    if not isinstance(kind, str) or kind not in served:
        raise AdapterError(
            f"{CONFIG} says peft_type {kind!r}, which no engine here serves unmerged",
            expected=f"one of {', '.join(sorted(served))}",
            fix="merge it (`rankwise merge RUN`) and serve the merged model as a base of its own",
        )
    _refuse_options(config)
    if kind == "LORA":
        _require_ranks(config, max_rank)
    return config


def _refuse_options(config: dict[str, Any]) -> None:
    for name, why in REFUSED.items():
        if config.get(name):
            raise AdapterError(f"{CONFIG} sets {name}: {why}", fix=f"train without {name}")
    mapping = config.get("auto_mapping") or {}
    library = mapping.get("parent_library") if isinstance(mapping, dict) else mapping
    if library is not None and not str(library).startswith(("transformers.", "peft.")):
        raise AdapterError(f"{CONFIG} asks to import {library!r}", expected="a model class of transformers")
    for name in ("target_modules", "modules_to_save"):
        value = config.get(name)
        listed = value if isinstance(value, list) else [value] if value is not None else []
        if not all(isinstance(part, str) and len(part) <= MOST_PATTERN for part in listed):
            raise AdapterError(f"{CONFIG}: {name} is {str(value)[:80]!r}", expected="names of modules")
    if config.get("bias", "none") != "none":
        raise AdapterError(f"{CONFIG} trains bias {config['bias']!r} of the base that all tenants share")
    if config.get("init_lora_weights", True) not in PLAIN_BEGINNINGS:
        raise AdapterError(
            f"{CONFIG} begins as {config['init_lora_weights']!r}, which rewrites the base's weights when it is loaded",
            fix="save it as plain LoRA (PEFT: path_initial_model_for_weight_conversion), as `rankwise train` does",
        )


def _require_ranks(config: dict[str, Any], max_rank: int) -> None:
    pattern = config.get("rank_pattern") or {}
    for rank in (config.get("r"), *(pattern.values() if isinstance(pattern, dict) else (pattern,))):
        if type(rank) is not int or not 1 <= rank <= max_rank:
            raise AdapterError(
                f"{CONFIG} has rank {rank!r}",
                expected=f"a whole number from 1 to {max_rank}",
                fix="`rankwise train` with a smaller rank, or a larger --max-rank if the engine carries it",
            )
    for alpha in _alphas(config):
        if type(alpha) not in (int, float) or not math.isfinite(alpha):
            raise AdapterError(f"{CONFIG} has lora_alpha {alpha!r}", expected="a number")


def _alphas(config: dict[str, Any]) -> Iterator[Any]:
    yield config.get("lora_alpha", 8)
    pattern = config.get("alpha_pattern") or {}
    yield from pattern.values() if isinstance(pattern, dict) else (pattern,)
