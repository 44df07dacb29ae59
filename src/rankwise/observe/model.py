"""ModelFacts from config.json and the headers of the safetensors files; no weight is read except to be hashed."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import yaml

from rankwise.errors import ModelError
from rankwise.model.locate import locate, weight_files
from rankwise.records import LinearShape, ModelFacts, Shapes, content_hash
from rankwise.text.hashes import cached_hash
from rankwise.text.template import ChatText
from rankwise.unsupported import NOT_TEXT

STORED = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}
# Conv1D stores (in, out) where Linear stores (out, in).
TRANSPOSED = {"gpt2", "openai-gpt", "imagegpt"}
HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings)\.weight$")
IN_BLOCK = re.compile(r"(^|\.)\d+\..*?([^.]+)\.weight$")
# What old checkpoints carry although it is no parameter.
BUFFER = re.compile(r"(inv_freq|masked_bias|\.attn\.bias|\.attention\.bias)$")


@dataclass(frozen=True)
class Tensor:
    """One entry of a safetensors header."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int


def observe_model(name: str) -> ModelFacts:
    """The facts of the model that a job names.

    Raises:
        ModelError: it cannot be found, its files are damaged, or it is stored quantised.
    """
    folder = locate(name)
    whole = _config(folder)
    config = whole.get("text_config") or whole
    if whole.get("quantization_config") or config.get("quantization_config"):
        raise ModelError(
            f"{name} is stored quantised, so its weights cannot be trained or merged as they are",
            expected="weights in bf16, fp16 or fp32",
            fix="name the unquantised model; qlora quantises it while loading",
        )
    if found := [key for key in NOT_TEXT if whole.get(key)]:
        raise ModelError(
            f"{name} ({whole.get('model_type')}) is a vision or audio model ({found[0]} in its config.json), and only "
            "text is trained",
            expected="a causal language model",
            fix="name its text-only counterpart",
        )
    tensors = read_headers(folder)
    params = {n: t for n, t in tensors.items() if not _is_buffer(n, t)}
    tied = _is_tied(config, whole, params)
    return ModelFacts(
        name=name,
        folder=str(folder),
        architecture=_architecture(whole, folder / "config.json"),
        total_params=sum(prod(t.shape) for n, t in params.items() if not (tied and _is_tied_copy(n, params))),
        linears=_linears(params, str(config.get("model_type", ""))),
        **_sizes(config, folder / "config.json"),
        tie_word_embeddings=tied,
        dtype=_stored_dtype(params, folder),
        weight_bytes=sum(t.bytes for t in tensors.values()),
        config=_text_config(whole),
        weights_hash=weights_hash(folder),
        template_hash=ChatText.from_folder(folder).template_hash,
        license=_license(folder),
        source=f"config.json and safetensors headers in {folder}",
    )


def describe_facts(
    name: str, config: dict[str, Any], shapes: Shapes, *, license: str | None, source: str
) -> ModelFacts:
    """The facts of a model whose files are not here: from its config, and the shapes of the class built from it.

    Raises:
        ModelError: a config that does not say its number of layers, width or vocabulary.
    """
    said = str(config.get("torch_dtype") or config.get("dtype") or "bfloat16").removeprefix("torch.")
    dtype = {"float16": "fp16", "float32": "fp32"}.get(said, "bf16")
    where = Path(f"the config of {name}")
    return ModelFacts(
        name=name,
        folder=None,
        architecture=_architecture(config, where),
        total_params=shapes.total_params,
        linears=shapes.linears,
        **_sizes(config, where),
        tie_word_embeddings=shapes.tied,
        dtype=dtype,
        weight_bytes=shapes.total_params * (4 if dtype == "fp32" else 2),
        config=config,
        weights_hash=None,
        template_hash=None,
        license=license,
        source=source,
    )


def read_headers(folder: Path) -> dict[str, Tensor]:
    """Name -> dtype, shape and bytes of every stored tensor. Raises ModelError for a damaged or cut file."""
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        for name, entry in _header(file).items():
            begin, end = entry["data_offsets"]
            tensors[name] = Tensor(entry["dtype"], tuple(entry["shape"]), end - begin)
    return tensors


def _header(file: Path) -> dict[str, Any]:
    """A safetensors file is: 8 bytes little-endian length, that much JSON, the data."""
    try:
        size = file.stat().st_size
        with file.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if length > size - 8:
                raise ValueError("header longer than the file")
            header: dict[str, Any] = json.loads(handle.read(length))
        header.pop("__metadata__", None)
        if 8 + length + max((e["data_offsets"][1] for e in header.values()), default=0) != size:
            raise ValueError("its size is not what its header says")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file} is damaged: {error}", fix="copy or download the model again") from None
    return header


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged: {error}", fix="copy or download the model again") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object", fix="copy or download the model again")
    return config


def _text_config(whole: dict[str, Any]) -> dict[str, Any]:
    """Of the language model, with the architectures of the whole."""
    inner = whole.get("text_config")
    return {"architectures": whole.get("architectures"), **inner} if inner else whole


def _architecture(config: Mapping[str, Any], file: Path) -> str:
    names = config.get("architectures")
    if not names:
        raise ModelError(f"{file} names no architecture", expected='"architectures": ["…ForCausalLM"]')
    return str(names[0])


def _sizes(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    return {
        "num_hidden_layers": _needed(config, file, "num_hidden_layers", "n_layer", "n_layers"),
        "hidden_size": _needed(config, file, "hidden_size", "n_embd", "d_model"),
        "intermediate_size": _first(config, "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
        "vocab_size": _needed(config, file, "vocab_size"),
        "max_position_embeddings": _first(config, "max_position_embeddings", "n_positions", "max_sequence_length"),
    }


def _first(config: Mapping[str, Any], *keys: str) -> int | None:
    return next((int(config[k]) for k in keys if config.get(k) is not None), None)


def _needed(config: Mapping[str, Any], file: Path, *keys: str) -> int:
    value = _first(config, *keys)
    if value is None:
        raise ModelError(f"{file} has no {keys[0]}", expected="the config of a causal language model")
    return value


def _is_buffer(name: str, tensor: Tensor) -> bool:
    if not BUFFER.search(name):
        return False
    return not name.endswith("bias") or name.endswith("masked_bias") or len(tensor.shape) == 4


def _is_tied(config: Mapping[str, Any], whole: Mapping[str, Any], params: Mapping[str, Tensor]) -> bool:
    said = config.get("tie_word_embeddings", whole.get("tie_word_embeddings"))
    return bool(said) if said is not None else not any(n.endswith(HEADS) for n in params)


def _is_tied_copy(name: str, params: Mapping[str, Tensor]) -> bool:
    """Is this the head of a tied model, stored a second time beside its embedding?"""
    return name.endswith(HEADS) and any(EMBEDDING.search(n) for n in params)


def _linears(params: Mapping[str, Tensor], model_type: str) -> tuple[LinearShape, ...]:
    """2-D weights inside the numbered blocks. Experts and their routers are left out: transformers keeps them as fused
    parameters, not as linear layers that an adapter could target."""
    experts = any(".experts." in n for n in params)
    counts: Counter[tuple[str, int, int]] = Counter()
    for name, tensor in params.items():
        found = IN_BLOCK.search(name)
        if not found or len(tensor.shape) != 2 or ".experts." in name:
            continue
        leaf = found.group(2)
        if experts and leaf in ("gate", "router"):
            continue
        out, inside = reversed(tensor.shape) if model_type in TRANSPOSED else tensor.shape
        counts[leaf, out, inside] += 1
    return tuple(LinearShape(name=n, out_features=o, in_features=i, count=c) for (n, o, i), c in sorted(counts.items()))


def _stored_dtype(params: Mapping[str, Tensor], folder: Path) -> str:
    """The dtype that holds the most bytes."""
    sizes: Counter[str] = Counter()
    for tensor in params.values():
        sizes[tensor.dtype] += tensor.bytes
    most = max(sizes, key=lambda d: sizes[d], default="none")
    if most not in STORED:
        raise ModelError(
            f"the weights in {folder} are stored as {most}", expected="bf16, fp16 or fp32 (BF16, F16, F32)"
        )
    return STORED[most]


def weights_hash(folder: Path) -> str:
    """By which a model is known again: of its weight files and config.json."""
    return content_hash({f.name: cached_hash(f) for f in [*weight_files(folder), folder / "config.json"]})


def _license(folder: Path) -> str | None:
    """`license` of the YAML front matter of README.md."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    parts = card.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        front = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    said = front.get("license_name") or front.get("license") if isinstance(front, dict) else None
    return ", ".join(map(str, said)) if isinstance(said, list) else (str(said) if said else None)
