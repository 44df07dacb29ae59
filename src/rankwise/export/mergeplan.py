"""The plan of a merge: for every tensor of every file where its bytes come from and what is done to them. Planning
reads headers alone, and refuses what does not fit before a byte is written.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal

from rankwise.errors import ModelError
from rankwise.export.adapterparts import Parts
from rankwise.export.changes import Change, NewRows
from rankwise.export.mergebase import BaseFiles
from rankwise.export.quantised import Quantised
from rankwise.export.shards import TORCH_DTYPES, Stored
from rankwise.records import NewTokens
from rankwise.records.merging import Rounding

STORED_AS = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Planned:
    """One tensor of the result.

    Attributes:
        out: its name, dtype and shape. source: whose rows are read. changes: in order; none is a copy.
    """

    out: Stored
    source: Stored
    changes: tuple[Change, ...] = ()

    @property
    def copied(self) -> bool:
        """Are the bytes of the source those of the result?"""
        return not self.changes and (self.out.dtype, self.out.shape) == (self.source.dtype, self.source.shape)

    @property
    def learned(self) -> bool:
        """Is there anything of an adapter in it?"""
        return bool(self.changes) or self.source.file != self.out.file


@dataclass(frozen=True)
class PlannedShard:
    name: str
    metadata: Mapping[str, str]
    tensors: tuple[Planned, ...]


@dataclass(frozen=True)
class MergePlan:
    """Files in their order, laid out as the base's."""

    base: BaseFiles
    shards: tuple[PlannedShard, ...]

    @property
    def tensors(self) -> list[Planned]:
        return [t for shard in self.shards for t in shard.tensors]

    @property
    def bytes(self) -> int:
        """Of the weights in the result."""
        return sum(t.out.bytes for t in self.tensors)

    def write_index(self, folder: Path) -> None:
        """model.safetensors.index.json, where the base has one."""
        if len(self.shards) > 1 or (self.base.folder / INDEX).is_file():
            names = {t.out.name: shard.name for shard in self.shards for t in shard.tensors}
            numbers = sum(prod(t.out.shape) for t in self.tensors)
            metadata = {"total_parameters": numbers, "total_size": self.bytes}
            content = {"metadata": metadata, "weight_map": dict(sorted(names.items()))}
            (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Wanted:
    """How a merge is asked for.

    Attributes:
        quantised: how linear weights were held in training; None: as they are stored. trained: their precision then.
        stored: precision of the result's floating-point tensors; None keeps each tensor's own. rounding: to it.
    """

    quantised: Literal["nf4", "int8"] | None = None
    trained: Literal["bf16", "fp32"] = "fp32"
    stored: str | None = None
    rounding: Rounding = "stochastic"
    new_tokens: NewTokens | None = None


def plan(base: BaseFiles, parts: Parts, wanted: Wanted) -> MergePlan:
    """Raises ModelError where a shape does not fit."""
    embeddings = {t.name for t in base.embeddings()}
    made = []
    for shard in base.shards:
        tensors = tuple(_planned(base, parts, wanted, t, t.name in embeddings) for t in shard.tensors)
        made.append(PlannedShard(shard.file.name, shard.metadata, tensors))
    return MergePlan(base, tuple(made))


def _planned(base: BaseFiles, parts: Parts, wanted: Wanted, own: Stored, embedding: bool) -> Planned:
    source = parts.whole.get(own.name, own)
    changes: list[Change] = []
    if wanted.quantised and base.is_quantised(own) and source is own:
        dtype = TORCH_DTYPES[STORED_AS[wanted.trained]]
        changes.append(Quantised(wanted.quantised, dtype, base.is_transposed(own)))
    shape = own.shape
    if embedding and wanted.new_tokens is not None:
        shape = (max(wanted.new_tokens.rows, own.shape[0]), *own.shape[1:])
        if source is own:
            changes.append(NewRows(wanted.new_tokens, own, TORCH_DTYPES[STORED_AS[wanted.trained]]))
    changes += parts.changes.get(own.name, [])
    stored = STORED_AS.get(wanted.stored or "", own.dtype) if own.is_float else own.dtype
    out = replace(own, dtype=stored, shape=shape)
    _validate(out, source, own, changes)
    return Planned(out, source, tuple(changes))


def _validate(out: Stored, source: Stored, own: Stored, changes: list[Change]) -> None:
    if source is not own and source.shape != out.shape:
        raise _misfit(out, f"the adapter holds it whole, as {_by(source.shape)}")
    for change in changes:
        if not own.is_float:
            raise _misfit(out, f"it is stored as {own.dtype}, which no update can be added to")
        if why := change.fits(out.shape):
            raise _misfit(out, why)


def _misfit(out: Stored, why: str) -> ModelError:
    return ModelError(
        f"the adapter does not fit {out.name} of this base, which is {_by(out.shape)}: {why}",
        expected="the base model that it was trained on",
        fix="adapter_config.json names that base",
    )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
