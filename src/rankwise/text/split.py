"""Rows set apart for validation: the same ones in planning, training and proof, whatever order the file is in."""

from rankwise.errors import DataError
from rankwise.records import content_hash
from rankwise.text.formats import Row


def hold_out(rows: list[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """(rows to train on, rows held out), each in the given order.

    A row's side follows from its content and the seed, so equal rows stay on one side and none leaks over. Held out is
    the share of the different rows, rounded, but at least one and never all.

    Raises:
        DataError: fewer than two different rows, so there is nothing to tell apart.
    """
    keys = [content_hash([seed, row.messages, row.text]) for row in rows]
    different = sorted(set(keys))
    if len(different) < 2:
        where = rows[0].path if rows else "data"
        raise DataError(
            where,
            None,
            f"{len(rows)} rows, of which {len(different)} are different, cannot be split",
            expected="at least two different rows, one to train on and one to hold out",
            fix="add rows, or give the held-out rows as a file in data.validation",
        )
    count = min(max(1, round(share * len(different))), len(different) - 1)
    chosen = set(different[:count])
    train = [row for row, key in zip(rows, keys, strict=True) if key not in chosen]
    return train, [row for row, key in zip(rows, keys, strict=True) if key in chosen]
