"""The rows of an audit with their ids, from the cache of tokenised rows; what cannot be learned is kept as a fault in
place of ending the audit."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rankwise.errors import DataError
from rankwise.text.dataset import sides
from rankwise.text.formats import Row
from rankwise.text.masks import Encoded
from rankwise.text.template import ChatText
from rankwise.text.tokens import Progress, TokenRows, TokenStore, tokens_of

__all__ = ["Encodings", "Progress", "of_source", "split_source"]


@dataclass
class Encodings:
    """Rows with their texts (several where the template rewrites earlier turns).

    Attributes:
        rows: in order; each is read from its file when it is asked for.
        encoded: the texts in the order of their rows.
        texts: of each row, how many.
        refused, unstable: rows of which nothing is learned, and those whose text cannot be cut into turns (the first
            of them), with their counts.
        format: that the rows are written in.
    """

    rows: Collection[Row]
    encoded: Sequence[Encoded]
    texts: Sequence[int]
    refused: Sequence[DataError] = ()
    unstable: Sequence[DataError] = ()
    refused_count: int = 0
    unstable_count: int = 0
    format: str = ""

    def pairs(self) -> Iterator[tuple[Row, list[Encoded]]]:
        """Each row with its texts."""
        at = 0
        for row, count in zip(self.rows, self.texts, strict=True):
            yield row, [self.encoded[i] for i in range(at, at + count)]
            at += count


NOTHING = Encodings((), (), ())


@dataclass(frozen=True)
class _SourceRows(Collection[Row]):
    """Some rows of a store, read from its source each time they are gone through."""

    store: TokenStore
    wanted: frozenset[int] | None = field(repr=False)

    def __len__(self) -> int:
        return self.store.count if self.wanted is None else len(self.wanted)

    def __iter__(self) -> Iterator[Row]:
        for number, row in enumerate(self.store.source_rows()):
            if self.wanted is None or number in self.wanted:
                yield row

    def __contains__(self, row: object) -> bool:
        return any(row == one for one in self)


def of_source(source: Path, chat: ChatText, seed: int, progress: Progress) -> Encodings:
    """All rows of a source. Raises DataError, ModelError as `tokens_of`."""
    store = tokens_of(source, chat, seed, progress)
    return _encodings(store, store.whole(), None, faults=True)


def split_source(
    source: Path, chat: ChatText, share: float, seed: int, progress: Progress
) -> tuple[Encodings, Encodings]:
    """(training rows, held-out rows) as training splits them; the faults are those of the first. Too few rows to be
    split are all looked at.
    """
    store = tokens_of(source, chat, seed, progress)
    if store.count < 2:
        return of_source(source, chat, seed, progress), NOTHING
    training, held_out = sides(store, share, seed)
    numbers = [frozenset(store.columns["rows"][t] for t in side.texts) for side in (training, held_out)]
    return _encodings(store, training, numbers[0], faults=True), _encodings(store, held_out, numbers[1], faults=False)


def _encodings(store: TokenStore, texts: TokenRows, wanted: frozenset[int] | None, *, faults: bool) -> Encodings:
    counts: list[int] = []
    last = None
    for text in texts.texts:
        row = store.columns["rows"][text]
        if row == last:
            counts[-1] += 1
        else:
            counts.append(1)
        last = row
    return Encodings(
        rows=_SourceRows(store, wanted),
        encoded=texts,
        texts=counts,
        refused=store.refused if faults else (),
        unstable=store.unstable if faults else (),
        refused_count=store.refused_count if faults else 0,
        unstable_count=store.unstable_count if faults else 0,
        format=store.format,
    )
