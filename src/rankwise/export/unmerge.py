"""A merge taken back: merged weights less the adapter's update, and how far they then lie from the base.

bf16 rounds once when the update is added and once when it is taken away. By chance and its mirror nearly all numbers
come back as they were; to the nearest most do, and some come one step beside it; in fp32 all but the last bits return.
What a merge overwrote (whole modules, rows of tokens), or divided by a length that only the base knows (DoRA), is
copied from the base.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rankwise.errors import ModelError
from rankwise.export.changes import Added, Change, LowRank, Scaled, Tally, whole_rows
from rankwise.export.execute import Progress, chain, silent, write
from rankwise.export.merge import MERGE, carry_files, parts_of
from rankwise.export.mergebase import BaseFiles
from rankwise.export.mergeplan import MergePlan, Planned, Wanted, plan
from rankwise.export.rounding import rounded_as
from rankwise.export.shards import TORCH_DTYPES, Reader, Stored, step_rows
from rankwise.files import hash_file, publish_folder, read_record, require_space, write_record
from rankwise.model.adapterproducts import WEIGHTS, AdapterFolder
from rankwise.records import Merge, MergedAdapter


@dataclass(frozen=True)
class Distance:
    """Between two sets of weights: the largest difference of a number, and the share of equal ones."""

    largest: float
    equal: float


def undo(
    base_folder: Path,
    adapter: Path,
    merged: Path,
    out: Path,
    wanted: Wanted,
    *,
    base_hash: str | None = None,
    progress: Progress = silent,
) -> Merge:
    """Write the base's weights, made again from `merged` without `adapter`, to `out`.

    Raises:
        ModelError: `merged` is no merge of this base, or holds nothing that the base could be made of.
        SpaceError: the disk of `out` has no room for the model.
    """
    began = time.monotonic()
    how = merged / MERGE
    rounding = read_record(how, Merge).rounding if how.is_file() else "nearest"
    base, held, opened = BaseFiles.open(base_folder), BaseFiles.open(merged), AdapterFolder.open(adapter)
    forward = plan(base, parts_of(opened, base), wanted)
    made = MergePlan(
        base,
        tuple(replace(s, tensors=tuple(_backward(t, base, held) for t in s.tensors)) for s in forward.shards),
    )
    require_space(out.parent, made.bytes, "the base's weights")
    with publish_folder(out) as folder:
        changed = write(made, folder, progress, rounded_as(rounding, back=True))
        carry_files(made, folder, Wanted(), base_folder)
        distance = _distance(forward, folder)
        done = Merge(
            how="undone",
            density=None,
            seed=None,
            base=str(base_folder),
            base_hash=base_hash,
            stored_as=wanted.quantised or "as-loaded",
            rounding=rounding,
            adapters=(MergedAdapter(path=str(adapter), sha256=hash_file(adapter / WEIGHTS), weight=-1.0),),
            copied=sum(t.copied for t in made.tensors),
            changed=changed,
            largest_tensor_bytes=base.largest(),
            bytes=made.bytes,
            seconds=time.monotonic() - began,
            undone_difference=distance.largest,
            undone_equal=distance.equal,
        )
        write_record(folder / MERGE, done)
    return done


def _backward(forward: Planned, base: BaseFiles, held: BaseFiles) -> Planned:
    own = base.tensors[forward.out.name]
    merged = held.tensors.get(own.name)
    if merged is None or merged.shape != forward.out.shape:
        raise ModelError(
            f"{held.folder} is no merge of this adapter into {base.folder}: {own.name} "
            + ("is missing" if merged is None else f"is {merged.shape}, not {forward.out.shape}"),
            expected="the folder that `rankwise merge` wrote for this run",
        )
    back = [_inverse(change) for change in forward.changes if not change.name.startswith("dequantised")]
    if forward.source is not own or not all(back):
        return Planned(own, own)
    return Planned(replace(own, dtype=merged.dtype), merged, tuple(change for change in reversed(back) if change))


def _inverse(change: Change) -> Change | None:
    """What takes a change away again; None where only the base can say."""
    if isinstance(change, LowRank):
        return replace(change, product=replace(change.product, scale=-change.product.scale))
    if isinstance(change, Scaled):
        return replace(change, inverse=not change.inverse)
    if isinstance(change, Added):
        return replace(change, scale=-change.scale)
    return None


def _distance(forward: MergePlan, folder: Path) -> Distance:
    """Of the files in `folder` to the base: dequantised, where the merge was onto a dequantised one."""
    written = {t.name: t for t in BaseFiles.open(folder).tensors.values()}
    largest, equal, count = 0.0, 0, 0
    with Reader() as reader, torch.inference_mode():
        for planned in forward.tensors:
            own = forward.base.tensors[planned.out.name]
            if not own.is_float:
                continue
            rows, known = whole_rows(reader, written[own.name]), _base_rows(planned, own, reader)
            for start in range(0, own.rows, step := step_rows(own)):
                stop = min(start + step, own.rows)
                ours, theirs = rows(start, stop), known(start, stop).to(TORCH_DTYPES[written[own.name].dtype]).float()
                largest = max(largest, float((ours - theirs).abs().max()))
                equal += int((ours == theirs).sum())
                count += ours.numel()
    return Distance(largest, equal / max(1, count))


def _base_rows(planned: Planned, own: Stored, reader: Reader) -> Callable[[int, int], Tensor]:
    rows = whole_rows(reader, own)
    first = [c for c in planned.changes if c.name.startswith("dequantised")]
    applied = chain(Planned(own, own, tuple(first)), reader, Tally())

    def seen(start: int, stop: int) -> Tensor:
        chunk = rows(start, stop)
        applied(chunk, start)
        return chunk

    return seen
