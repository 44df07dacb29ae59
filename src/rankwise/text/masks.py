"""Rows into token ids and labels.

What is learned is decided here, once, by character offsets in the rendered text; `segments` says which characters. A
label is the id itself, not shifted (the step that computes the loss does the shift); IGNORE marks what is context only.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from rankwise.errors import DataError, ModelError
from rankwise.text.formats import Row
from rankwise.text.segments import Segment, segments
from rankwise.text.template import ChatText

IGNORE = -100


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


class LazyRows(Sequence[Encoded], ABC):
    """Rows that are read one by one, when they are asked for. A subclass says how many there are and reads one."""

    @abstractmethod
    def read(self, index: int) -> Encoded:
        """Row `index`, from 0 to the number of rows."""

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        numbers = range(len(self))[index]
        return self.read(numbers) if isinstance(numbers, int) else [self.read(number) for number in numbers]


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
