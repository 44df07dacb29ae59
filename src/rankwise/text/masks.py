"""Rows into token ids and labels, and made to fit a length with the price of it counted.

What is learned is decided here, once, by character offsets in the rendered text; `segments` says which characters. A
label is the id itself, not shifted (the step that computes the loss does the shift); IGNORE marks what is context only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rankwise.errors import DataError, ModelError, UsageError
from rankwise.text.formats import Row
from rankwise.text.segments import Segment, segments
from rankwise.text.template import ChatText

IGNORE = -100

OnLong = Literal["drop", "truncate", "split", "error"]


@dataclass(frozen=True)
class Encoded:
    """Token ids and their labels (an id, or IGNORE), of one length; `line` is 1-based in `path`.

    unprompted: an answer in it begins otherwise than the template's generation prompt does.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    line: int
    path: Path = Path("data")
    unprompted: bool = False

    @property
    def supervised(self) -> int:
        """Labelled tokens."""
        return sum(label != IGNORE for label in self.labels)


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


def encode_rows(row: Row, text: ChatText) -> list[Encoded]:
    """Ids of the row and labels on what the assistant says (its reasoning, calls and stop token included); a document
    is labelled throughout. One, unless the template rewrites earlier turns (see `segments`).

    Raises:
        DataError: the template refuses the row, or nothing in it is labelled.
        ModelError: no chat template, or one with which answers cannot be told apart.
    """
    if row.text is not None:
        ids = tuple(text.encode_document(row.text))
        return [Encoded(ids, ids, row.line, row.path)]
    encoded = [_encode(row, segment, text) for segment in segments(row, text)]
    if not any(one.supervised for one in encoded):
        raise DataError(
            row.path,
            row.line,
            "nothing in this row would be learned: the template writes no assistant text for it",
            expected="at least one assistant turn that is written and does not have weight 0",
        )
    return [one for one in encoded if one.supervised]


def encode_row(row: Row, text: ChatText) -> Encoded:
    """As `encode_rows`, of a row that is trained as one.

    Raises:
        ModelError: also where the template rewrites earlier turns, so that the row has to be taken apart.
    """
    encoded = encode_rows(row, text)
    if len(encoded) > 1:
        raise ModelError(
            f"the chat template rewrites earlier turns, so {row.path}:{row.line} is not one text but {len(encoded)}",
            expected="one learned answer, or a template that only appends",
        )
    return encoded[0]


def _encode(row: Row, segment: Segment, text: ChatText) -> Encoded:
    ids, offsets = text.offsets(segment.text)
    labels, stops = [IGNORE] * len(ids), text.stop_token_ids
    for start, end in segment.spans:
        # A token may have no character of its own (a blank that offsets leave out); it counts where it stands.
        inside = [i for i, (first, last) in enumerate(offsets) if max(last, first + 1) > start and first < end]
        # A template that marks what is learned is taken at its word.
        for index in inside if segment.marked else _said(segment.text, start, end, inside, ids, offsets, stops):
            labels[index] = ids[index]
    return Encoded(tuple(ids), tuple(labels), row.line, row.path, segment.unprompted)


def _said(
    full: str,
    start: int,
    end: int,
    inside: Sequence[int],
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    stops: Sequence[int],
) -> range:
    """The tokens of a turn, of those `inside` it: from the first to the stop token, without blanks after it."""
    ending = next((i for i in reversed(inside) if ids[i] in stops), None)
    if ending is None or full[offsets[ending][1] : end].strip():
        written = start + len(full[start:end].rstrip())
        ending = next((i for i in reversed(inside) if offsets[i][0] < written), None)
    return range(0) if ending is None else range(inside[0], ending + 1)


def fit_length(encoded: Sequence[Encoded], max_length: int, on_long: OnLong) -> tuple[list[Encoded], LengthReport]:
    """The rows with at most `max_length` tokens each, in order, and what it cost.

    `split` cuts windows and gives up the label of each later window's first token, which nothing comes before to
    predict it from. Windows and truncated rows without a label are dropped.

    Raises:
        UsageError: `max_length` is below 2, with which no token can be predicted from another.
        DataError: a row is too long and `on_long` is error; or no row is left.
    """
    if max_length < 2:
        raise UsageError(f"max_length is {max_length}", expected="at least 2 tokens")
    long = [row for row in encoded if len(row.ids) > max_length]
    if long and on_long == "error":
        raise _too_long(long, max_length)
    fitted: list[Encoded] = []
    dropped = windows = 0
    for row in encoded:
        parts = [row] if len(row.ids) <= max_length else list(_cut(row, max_length, on_long))
        fitted += parts
        if len(row.ids) > max_length:
            dropped += not parts
            windows += len(parts) if on_long == "split" else 0
    if not fitted:
        raise _nothing_left(encoded, max_length, on_long)
    return fitted, LengthReport(
        rows=len(encoded),
        long_rows=len(long),
        dropped_rows=dropped,
        dropped_tokens=sum(len(row.ids) for row in encoded) - sum(len(row.ids) for row in fitted),
        lost_supervised_tokens=sum(row.supervised for row in encoded) - sum(row.supervised for row in fitted),
        split_into=windows,
    )


def _cut(row: Encoded, max_length: int, on_long: OnLong) -> Iterator[Encoded]:
    starts = {"drop": range(0), "truncate": range(1), "split": range(0, len(row.ids), max_length)}[on_long]
    for start in starts:
        labels = row.labels[start : start + max_length]
        if start:
            labels = (IGNORE, *labels[1:])
        window = replace(row, ids=row.ids[start : start + max_length], labels=labels)
        if window.supervised:
            yield window


def _too_long(long: Sequence[Encoded], max_length: int) -> DataError:
    longest = max(len(row.ids) for row in long)
    return DataError(
        long[0].path,
        long[0].line,
        f"the row has {len(long[0].ids)} tokens and max_length is {max_length}; "
        f"{len(long)} rows are longer than that, the longest has {longest} tokens",
        expected="no longer row, because on_long is error",
        fix=f"set max_length to {longest}, or on_long to drop, truncate or split",
    )


def _nothing_left(encoded: Sequence[Encoded], max_length: int, on_long: OnLong) -> DataError:
    if not encoded:
        return DataError("data", None, "there are no rows", expected="at least one row")
    longest = max(len(row.ids) for row in encoded)
    return DataError(
        encoded[0].path,
        None,
        f"no row is left: all {len(encoded)} are longer than {max_length} tokens and on_long is {on_long}",
        expected="at least one row with something to learn",
        fix=f"raise max_length (the longest row has {longest} tokens), or set on_long to split",
    )
