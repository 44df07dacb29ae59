"""Tensors of an adapter, held against the base they are to be put on: header, names, shapes, values. Nothing is loaded
whole, and no torch: values are looked at as bits, a block at a time.
"""

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from rankwise.errors import AdapterError
from rankwise.records import ModelFacts
from rankwise.serve.adapterfiles import PICKLED

MOST_HEADER_BYTES = 16 << 20  # an adapter of 10,000 tensors has a header of some 2 MB
BLOCK = 16 << 20  # values looked at at once
# safetensors' dtype -> (numpy type of its bits, mask of the exponent): all exponent bits set is infinite or no number.
FLOATS = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
_LAYER = re.compile(r"\.(?:layers|h|blocks|block)\.(\d+)\.")
_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector|ia3_l|"
    r"token_adapter\.trainable_tokens_delta|trainable_tokens_delta|bottleneck\.down|bottleneck\.up)"
    r"(?P<what>\.weight|\.bias)?"
)
EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings")

Shapes = dict[str, tuple[str, tuple[int, ...]]]  # name -> (dtype, shape)


def require_tensors(path: Path, config: Mapping[str, Any], base: ModelFacts, max_rank: int) -> None:
    """The whole check of adapter_model.safetensors.

    Raises:
        AdapterError: not safetensors, a header that lies, tensors that do not fit the base, NaN or infinity.
    """
    start, header = read_header(path)
    tensors = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
    if not tensors:
        raise AdapterError(f"{path.name} holds no tensor", expected="what training wrote")
    for name, (dtype, shape) in tensors.items():
        if dtype not in FLOATS:
            raise AdapterError(f"{name} has dtype {dtype}", expected=f"one of {', '.join(FLOATS)}")
        _require_place(name, shape, tensors, config, base, max_rank)
    _require_finite(path, start, header)


def read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """(where the values begin, name -> dtype, shape, offsets), after safetensors itself has held them against the file:
    offsets without overlap, gap or end outside it, sizes that follow from the shapes.
    """
    with path.open("rb") as file:
        begun = file.read(8)
        if begun.startswith(PICKLED):
            raise AdapterError(
                f"{path.name} is a pickle by another name: reading it would run code", expected="safetensors"
            )
        length = struct.unpack("<Q", begun)[0] if len(begun) == 8 else 0
        if not 2 <= length <= min(MOST_HEADER_BYTES, path.stat().st_size - 8):
            raise AdapterError(
                f"{path.name} says its header has {length:,} bytes, the file has {path.stat().st_size:,}",
                expected=f"safetensors with a header of at most {MOST_HEADER_BYTES:,} bytes",
            )
        text = file.read(length)
    try:
        with safe_open(path, framework="np"):
            header = json.loads(text, object_pairs_hook=_no_twins)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise AdapterError(f"{path.name} is damaged: {error}", expected="safetensors") from None
    header.pop("__metadata__", None)
    return 8 + length, header


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """One parser takes the first of two equal keys, another the last."""
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice in its header")
    return dict(pairs)


def _require_place(
    name: str, shape: tuple[int, ...], tensors: Shapes, config: Mapping[str, Any], base: ModelFacts, max_rank: int
) -> None:
    layer = _LAYER.search(name)
    if layer and int(layer[1]) >= base.num_hidden_layers:
        raise AdapterError(f"{name} is of a layer that {base.name} has not (it has {base.num_hidden_layers})")
    if name == "prompt_embeddings":
        fits = len(shape) == 2 and shape[0] == config.get("num_virtual_tokens")
    elif found := _PART.fullmatch(name):
        fits = _fits(found, shape, tensors, base, max_rank)
    elif module := _kept_whole(name, config):
        fits = shape in _weights(module, base) or (len(shape) == 1 and shape[0] <= base.vocab_size)
    else:
        raise AdapterError(
            f"{name} is no tensor of an adapter: loading it would overwrite what all tenants share",
            expected="what an adapter adds, named as PEFT's save_pretrained does",
            fix="train new tokens with trainable_token_indices and leave embeddings out of target_modules, or merge it "
            "and serve it as a base of its own",
        )
    if not fits:
        raise AdapterError(
            f"{name} has shape {list(shape)}, which does not fit {base.name}",
            expected="an adapter that was trained on this base",
        )


def _kept_whole(name: str, config: Mapping[str, Any]) -> str | None:
    """The module of a weight that the adapter has a copy of its own of: one of `modules_to_save`. Any other weight that
    PEFT finds in the file, such as embeddings that were saved along, goes into the base.
    """
    parts = name.split(".")
    module = parts[-2] if len(parts) > 1 else ""
    return module if module in (config.get("modules_to_save") or ()) else None


def _weights(module: str, base: ModelFacts) -> set[tuple[int, ...]]:
    """(out, in) of the weights of that name; an embedding may have grown by new tokens, which its config would say."""
    if module in EMBEDDINGS:
        return {(base.vocab_size, base.hidden_size)}
    return {(s.out_features, s.in_features) for s in base.linears if s.name == module}


def _fits(found: re.Match[str], shape: tuple[int, ...], tensors: Shapes, base: ModelFacts, max_rank: int) -> bool:
    name, part = found["module"], found["part"]
    weights = _weights(name.rpartition(".")[2], base)
    outs, ins = {w[0] for w in weights}, {w[1] for w in weights}
    if found["what"] == ".bias":
        return (part == "lora_B" and len(shape) == 1 and shape[0] in outs) or part.startswith("bottleneck")
    if part in ("lora_A", "lora_B"):
        return _product_fits(name, tensors, weights, max_rank)
    if part == "lora_magnitude_vector":
        return len(shape) == 1 and shape[0] in outs
    if part == "ia3_l":
        return shape in {(o, 1) for o in outs} | {(1, i) for i in ins}
    if part.startswith("lora_embedding"):
        wide = base.vocab_size if part.endswith("A") else base.hidden_size
        return len(shape) == 2 and wide in shape and min(shape) <= max_rank
    if part.startswith("bottleneck"):
        return len(shape) == 2 and base.hidden_size in shape and min(shape) <= base.hidden_size
    return len(shape) == 2 and shape[1] == base.hidden_size and shape[0] <= base.vocab_size


def _product_fits(module: str, tensors: Shapes, weights: set[tuple[int, ...]], max_rank: int) -> bool:
    """A is (r, in) and B (out, r), of one weight of the base and one r."""
    a, b = (tensors.get(f"{module}.{part}.weight", ("", ()))[1] for part in ("lora_A", "lora_B"))
    return len(a) == len(b) == 2 and (b[0], a[1]) in weights and a[0] == b[1] and 1 <= a[0] <= max_rank


def _require_finite(path: Path, start: int, header: Mapping[str, Any]) -> None:
    with path.open("rb") as file:
        for name, entry in header.items():
            bits, mask = FLOATS[entry["dtype"]]
            begin, end = entry["data_offsets"]
            file.seek(start + begin)
            for at in range(begin, end, BLOCK):
                values = np.frombuffer(file.read(min(BLOCK, end - at)), dtype=bits)
                if bool(((values & mask) == mask).any()):
                    raise AdapterError(
                        f"{name} holds NaN or infinity",
                        expected="finite numbers",
                        fix="train again with a lower learning rate; `rankwise report RUN` shows where it went wrong",
                    )
