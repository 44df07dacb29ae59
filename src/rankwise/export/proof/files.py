"""What lies on disk, before anything is loaded: every tensor there, finite and of the right shape, embedding and head
as the base has them, sizes as predicted. One tensor is in memory at a time.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM

from rankwise.model.adapterproducts import WEIGHTS
from rankwise.model.load import quiet_transformers
from rankwise.model.locate import weight_files
from rankwise.records import Check, ModelFacts, NewTokens

# Share by which a size may be off its prediction, and bytes that a header may differ by.
TOLERANCE = 0.01
HEADER_BYTES = 4096
ITEM_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
WEIGHTS_WHOLE = "tensors_"  # how the check of single tensors is named, before the folder
NAMED = 3  # tensors that are named where more are wrong


@dataclass(frozen=True)
class Published:
    """A folder of an artifact.

    Attributes:
        whole: a model, not an adapter.
        predicted_bytes: of the adapter's file, as the plan said it; None where it did not. A model's are counted.
        base: what it was trained from; new_tokens: rows that its vocabulary got.
    """

    folder: Path
    whole: bool
    base: ModelFacts
    new_tokens: NewTokens | None = None
    predicted_bytes: int | None = None

    @cached_property
    def weights(self) -> list[Path]:
        if self.whole:
            return weight_files(self.folder)
        return [f for f in [self.folder / WEIGHTS] if f.is_file()]


def examine(published: Published) -> list[Check]:
    """The checks of one folder's weight files."""
    name, here = published.folder.name, f"the weights of {published.folder.name}/"
    try:
        found, wrong = _read(published)
        built = _built(published) if published.whole and not wrong else None
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        found, wrong, built = {}, [f"cannot be read: {first[:200]}"], None
    if built is not None:
        wrong = built.wrong
    count = sum(prod(shape) for shape in found.values())
    checks = [
        Check(
            name=f"{WEIGHTS_WHOLE}{name}",
            passed=bool(found) and not wrong,
            number="; ".join(wrong) if wrong else f"{len(found)} tensors, {count:,} numbers",
            limit="all there, none empty, all finite",
            text=f"Every tensor of {here}, read from disk.",
        )
    ]
    if built is not None and not wrong:
        checks.append(_tied(published, built, found))
    if found:
        checks.append(_size(published, built, found))
    return checks


def _tensors(files: list[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - a safetensors file is no mapping
                yield name, opened.get_tensor(name)


def _read(published: Published) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """(shape by name, what is wrong with single tensors)."""
    shapes, empty, unsound = {}, [], []
    if not published.weights:
        return {}, ["there is no safetensors file"]
    for name, tensor in _tensors(published.weights):
        shapes[name] = tuple(tensor.shape)
        if not tensor.numel():
            empty.append(name)
        elif tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            unsound.append(name)
    wrong = (
        [_list("empty, as a sharded model leaves them that was saved without being gathered", empty)] if empty else []
    )
    return shapes, [*wrong, _list("holding NaN or infinity", unsound)] if unsound else wrong


def _list(what: str, names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {what}: {', '.join(names[:NAMED])}{more}"


@dataclass(frozen=True)
class _Built:
    """The class of a folder's model on `meta`: what its files lack, and the names of embedding and head."""

    wrong: list[str]
    embedding: str
    head: str
    tied: bool


def _built(published: Published) -> _Built:
    """transformers' own account of which weights it would load, without their values."""
    with quiet_transformers():
        model: Any
        model, told = AutoModelForCausalLM.from_pretrained(
            published.folder,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    shapes = [f"{name} ({tuple(found)}, not {tuple(wanted)})" for name, found, wanted in told["mismatched_keys"]]
    faults = {
        "missing, and would be drawn at random": sorted(told["missing_keys"]),
        "of another shape": sorted(shapes),
        "without a place in the model": sorted(told["unexpected_keys"]),
    }
    modules = {id(module): name for name, module in model.named_modules()}
    embedding, head = (modules[id(m)] for m in (model.get_input_embeddings(), model.get_output_embeddings()))
    return _Built(
        wrong=[_list(what, names) for what, names in faults.items() if names],
        embedding=f"{embedding}.weight",
        head=f"{head}.weight",
        tied=bool(model.config.get_text_config().tie_word_embeddings),
    )


def _tied(published: Published, built: _Built, found: dict[str, tuple[int, ...]]) -> Check:
    """Saved tied where the base is tied, and apart where it is apart: what collapses to one tensor loses the other."""
    wrong = []
    if built.tied != published.base.tie_word_embeddings:
        wrong.append(f"config.json ties them, {built.tied}, and the base does, {published.base.tie_word_embeddings}")
    two = {name: t for name, t in _tensors(published.weights) if name in (built.embedding, built.head)}
    for name, tensor in two.items():
        if len(tensor) > 1 and bool((tensor == tensor[:1]).all()):
            wrong.append(f"all {len(tensor):,} rows of {name} are the same")
    if len(two) == 2:
        equal = two[built.embedding].shape == two[built.head].shape and torch.equal(*two.values())
        if built.tied and not equal:
            wrong.append(f"{built.head} is stored apart from {built.embedding}, and loading would drop it")
        if not built.tied and equal and not _equal_in_base(published, built):
            wrong.append(f"{built.head} holds the very numbers of {built.embedding}")
    return Check(
        name=f"tied_{published.folder.name}",
        passed=not wrong,
        number="; ".join(wrong) if wrong else "one tensor for both" if built.tied else "a tensor for each",
        limit="as in the base",
        text=f"Embedding and head of {published.folder.name}/.",
    )


def _equal_in_base(published: Published, built: _Built) -> bool:
    files = weight_files(published.base.path)
    two = [t for name, t in _tensors(files) if name in (built.embedding, built.head)]
    return len(two) == 2 and torch.equal(*two)


def _size(published: Published, built: _Built | None, found: dict[str, tuple[int, ...]]) -> Check:
    """A whole model's tensors are counted from the base, in the precision that its config.json states; an adapter's
    file is what the plan said.
    """
    if published.whole:
        actual, predicted = _tensor_bytes(published, built), _model_bytes(published)
        text = (
            f"Tensors of {published.folder.name}/, against the parameters of the base in the precision of its config."
        )
    else:
        actual, predicted = sum(f.stat().st_size for f in published.weights), published.predicted_bytes
        text = f"The file of {published.folder.name}/, against the plan's prediction."
    allowed = None if predicted is None else TOLERANCE * predicted + HEADER_BYTES
    return Check(
        name=f"size_{published.folder.name}",
        passed=predicted is None or allowed is None or abs(actual - predicted) <= allowed,
        number=f"{actual:,} bytes, predicted {'unknown' if predicted is None else f'{predicted:,}'}",
        limit=f"{TOLERANCE:.0%} and {HEADER_BYTES:,} bytes of header",
        text=text,
    )


def _tensor_bytes(published: Published, built: _Built | None) -> int:
    """Of all tensors; a head that is stored beside the embedding it is tied to counts once."""
    sizes = {name: t.numel() * t.element_size() for name, t in _tensors(published.weights)}
    both = built is not None and built.tied and {built.head, built.embedding} <= set(sizes)
    return sum(sizes.values()) - (sizes[built.head] if both and built is not None else 0)


def _model_bytes(published: Published) -> int | None:
    """None where the precision is none that we know."""
    config = json.loads((published.folder / "config.json").read_text(encoding="utf-8"))
    stored = str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch.")
    facts, new = published.base, published.new_tokens
    rows = max(0, new.rows - facts.vocab_size) if new else 0
    numbers = facts.total_params + rows * facts.hidden_size * (1 if facts.tie_word_embeddings else 2)
    return numbers * ITEM_BYTES[stored] if stored in ITEM_BYTES else None
