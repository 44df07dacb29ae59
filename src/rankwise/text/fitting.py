"""Encoded rows made to fit a length, with the price of it counted."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rankwise.errors import DataError, UsageError
from rankwise.text.masks import IGNORE, Encoded
from rankwise.text.tokens import TokenRows, digest

OnLong = Literal["drop", "truncate", "split", "error"]


@dataclass(frozen=True)
class LengthReport:
    """What making rows fit has cost. Tokens that are lost are counted whether or not they were labelled.

    rows: rows given. long_rows: of these, longer than allowed. dropped_rows: of the long, those of which nothing is
    left. dropped_tokens: tokens in no row any more. lost_supervised_tokens: labels in no row any more. split_into:
    windows kept from long rows (0 unless they are split).
    """

    rows: int
    long_rows: int
    dropped_rows: int
    dropped_tokens: int
    lost_supervised_tokens: int
    split_into: int


def lengths_of(encoded: Sequence[Any]) -> Sequence[int]:
    """Tokens of each row; of rows in the cache none has to be read for it."""
    known = getattr(encoded, "lengths", None)
    return known if known is not None else [len(row.ids) for row in encoded]


def supervised_of(encoded: Sequence[Encoded]) -> Sequence[int]:
    """Labelled tokens of each row."""
    known = getattr(encoded, "supervised", None)
    return known if known is not None else [row.supervised for row in encoded]


def digests_of(encoded: Sequence[Encoded]) -> "array[int]":
    """8 bytes of a hash of each row's ids."""
    if isinstance(encoded, TokenRows):
        return encoded.digests
    return array("Q", (digest(array("i", row.ids).tobytes()) for row in encoded))


def fit_length(encoded: Sequence[Encoded], max_length: int, on_long: OnLong) -> tuple[Sequence[Encoded], LengthReport]:
    """The rows with at most `max_length` tokens each, in order, and what it cost. Of rows in the cache, only long ones
    are read.

    `split` cuts windows and gives up the label of each later window's first token, which nothing comes before to
    predict it from. Windows and truncated rows without a label are dropped.

    Raises:
        UsageError: `max_length` is below 2, with which no token can be predicted from another.
        DataError: a row is too long and `on_long` is error; or no row is left.
    """
    windows, report = windows_of(encoded, max_length, on_long)
    if not report.long_rows:
        return encoded, report
    if isinstance(encoded, TokenRows):
        return encoded.cut(*windows), report
    rows, starts, stops, _ = windows
    return [_window(encoded[n], a, b) for n, a, b in zip(rows, starts, stops, strict=True)], report


def windows_of(
    encoded: Sequence[Encoded], max_length: int, on_long: OnLong
) -> tuple[tuple["array[int]", "array[int]", "array[int]", "array[int]"], LengthReport]:
    """((row, start, stop, labelled tokens) of what is kept, as columns; what it cost). Raises as `fit_length`."""
    if max_length < 2:
        raise UsageError(f"max_length is {max_length}", expected="at least 2 tokens")
    lengths, supervised = lengths_of(encoded), supervised_of(encoded)
    long = sum(length > max_length for length in lengths)
    if long and on_long == "error":
        first = next(number for number, length in enumerate(lengths) if length > max_length)
        raise _too_long(encoded[first], long, max(lengths), max_length)
    rows, starts, stops, labelled = (array("q") for _ in range(4))
    dropped = windows = 0
    for number, length in enumerate(lengths):
        if length <= max_length:
            parts = [(0, length, supervised[number])]
        else:
            parts = list(_windows(encoded[number], max_length, on_long))
            dropped += not parts
            windows += len(parts) if on_long == "split" else 0
        for start, stop, count in parts:
            for column, value in ((rows, number), (starts, start), (stops, stop), (labelled, count)):
                column.append(value)
    if not rows:
        raise _nothing_left(encoded, max_length, on_long)
    return (rows, starts, stops, labelled), LengthReport(
        rows=len(encoded),
        long_rows=long,
        dropped_rows=dropped,
        dropped_tokens=sum(lengths) - sum(stops) + sum(starts),
        lost_supervised_tokens=sum(supervised) - sum(labelled),
        split_into=windows,
    )


def _windows(row: Encoded, max_length: int, on_long: OnLong) -> Iterator[tuple[int, int, int]]:
    """(start, stop, labelled tokens) of the windows of a long row in which something is learned."""
    starts = {"drop": range(0), "truncate": range(1), "split": range(0, len(row.ids), max_length)}[on_long]
    for start in starts:
        stop = min(start + max_length, len(row.ids))
        if count := _window(row, start, stop).supervised:
            yield start, stop, count


def _window(row: Encoded, start: int, stop: int) -> Encoded:
    if (start, stop) == (0, len(row.ids)):
        return row
    labels = row.labels[start:stop]
    return replace(row, ids=row.ids[start:stop], labels=(IGNORE, *labels[1:]) if start else labels)


def _too_long(first: Encoded, count: int, longest: int, max_length: int) -> DataError:
    return DataError(
        first.path,
        first.line,
        f"the row has {len(first.ids)} tokens and max_length is {max_length}; "
        f"{count} rows are longer than that, the longest has {longest} tokens",
        expected="no longer row, because on_long is error",
        fix=f"set max_length to {longest}, or on_long to drop, truncate or split",
    )


def _nothing_left(encoded: Sequence[Encoded], max_length: int, on_long: OnLong) -> DataError:
    if not encoded:
        return DataError("data", None, "there are no rows", expected="at least one row")
    longest = max(lengths_of(encoded))
    return DataError(
        encoded[0].path,
        None,
        f"no row is left: all {len(encoded)} are longer than {max_length} tokens and on_long is {on_long}",
        expected="at least one row with something to learn",
        fix=f"raise max_length (the longest row has {longest} tokens), or set on_long to split",
    )
