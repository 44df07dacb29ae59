"""A merge's plan carried out: rows in, changed in fp32, rounded, rows out. A core's cache holds all that is in work."""

import errno
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from rankwise.errors import ModelError, SpaceError
from rankwise.export.changes import Apply, Tally, whole_rows
from rankwise.export.mergeplan import MergePlan, Planned
from rankwise.export.rounding import Rounded, nearest
from rankwise.export.shards import TORCH_DTYPES, Reader, Writer, step_rows, width_of
from rankwise.records import MergedTensor

# (what is counted, how many are done, how many there are)
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, of: int) -> None:
    """No progress is shown."""


def write(plan: MergePlan, folder: Path, progress: Progress, rounded: Rounded) -> tuple[MergedTensor, ...]:
    """Write the files of a plan into an existing folder, on disk when this returns; returns what was changed.

    Args:
        rounded: how what an adapter changed becomes numbers of the files.

    Raises:
        SpaceError: the disk is full. ModelError: a result that is not finite, or a base that is cut off.
    """
    changed, done, count = [], 0, len(plan.tensors)
    try:
        with Reader() as reader, Writer() as writer, torch.inference_mode():
            for shard in plan.shards:
                starts = writer.begin(folder / shard.name, [t.out for t in shard.tensors], shard.metadata)
                for tensor in shard.tensors:
                    done += 1
                    progress("tensors", done, count)
                    at = starts[tensor.out.name]
                    if tensor.copied:
                        writer.copy(reader.handle(tensor.source.file), tensor.source.offset, at, tensor.out.bytes)
                    elif tensor.out.bytes:
                        changed.append(_compute(tensor, reader, writer, at, rounded))
                writer.end()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpaceError(
                f"the disk of {folder.parent} is full: the merged weights are {plan.bytes / 1e6:,.0f} MB",
                fix="free some space, or choose another folder with --out",
            ) from error
        raise
    plan.write_index(folder)
    return tuple(changed)


def _compute(planned: Planned, reader: Reader, writer: Writer, at: int, rounded: Rounded) -> MergedTensor:
    tally, out = Tally(), planned.out
    rows, applied = whole_rows(reader, planned.source), chain(planned, reader, tally)
    dtype, row_bytes = TORCH_DTYPES[out.dtype], out.width * width_of(out.dtype)
    cast = rounded if planned.learned else nearest
    for start in range(0, out.rows, step := step_rows(out)):
        chunk = rows(start, min(start + step, out.rows))
        applied(chunk, start)
        if not math.isfinite(float(chunk.sum())):
            raise ModelError(
                f"{out.name} is not finite after the merge",
                expected="numbers in the adapter and in the base",
                fix="the adapter holds NaN or infinite values, or belongs to another base: train it again",
            )
        writer.put(at + start * row_bytes, cast(chunk, dtype, out.name, start * out.width))
    return MergedTensor(
        tensor=out.name,
        changes=tuple(change.name for change in planned.changes),
        delta_norm=math.sqrt(max(0.0, tally.delta)) if tally.delta else None,
        quantisation_error=math.sqrt(tally.quantising) if tally.quantised else None,
    )


def chain(planned: Planned, reader: Reader, tally: Tally) -> Apply:
    """All changes of a tensor as one; each sees the rows as those before it leave them."""
    rows, begun = whole_rows(reader, planned.source), []
    for change in planned.changes:
        applied = change.begin(rows, planned.out, tally)
        begun.append(applied)
        rows = _after(rows, applied)

    def apply(chunk: Tensor, start: int) -> None:
        for one in begun:
            one(chunk, start)

    return apply


def _after(rows: Callable[[int, int], Tensor], applied: Apply) -> Callable[[int, int], Tensor]:
    def changed(start: int, stop: int) -> Tensor:
        chunk = rows(start, stop)
        applied(chunk, start)
        return chunk

    return changed
