"""Rows set apart for validation: the same ones in planning, training and proof, whatever order the file is in."""

from array import array
from collections.abc import Sequence

from rankwise.errors import DataError
from rankwise.records import content_hash
from rankwise.text.formats import Row


def split_key(row: Row, seed: int) -> int:
    """64 bits that follow from what a row says and the seed; the rows with the lowest are held out."""
    return int(content_hash([seed, row.messages, row.text])[:16], 16)


def hold_out(rows: list[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """(rows to train on, rows held out), each in the given order.

    A row's side follows from its content and the seed, so equal rows stay on one side and none leaks over. Held out is
    the share of the different rows, rounded, but at least one and never all.

    Raises:
        DataError: fewer than two different rows, so there is nothing to tell apart.
    """
    keys = [split_key(row, seed) for row in rows]
    last = last_held_out(array("Q", keys), share, str(rows[0].path) if rows else "data")
    train = [row for row, key in zip(rows, keys, strict=True) if key > last]
    return train, [row for row, key in zip(rows, keys, strict=True) if key <= last]


def last_held_out(keys: Sequence[int], share: float, where: str) -> int:
    """The highest of the `split_key`s that are held out. Raises as `hold_out`; `where` names the rows."""
    import numpy as np  # here: it takes a tenth of a second to load

    different = np.unique(np.asarray(keys, dtype=np.uint64))
    if len(different) < 2:
        raise DataError(
            where,
            None,
            f"{len(keys)} rows, of which {len(different)} are different, cannot be split",
            expected="at least two different rows, one to train on and one to hold out",
            fix="add rows, or give the held-out rows as a file in data.validation",
        )
    count = min(max(1, round(share * len(different))), len(different) - 1)
    return int(different[count - 1])
