"""The rows of one optimizer step as batches of one forward pass each: packed end to end, or similar lengths together.

Whatever the batches, the optimizer sees the same rows in a step, and its loss is their mean over supervised tokens; so
packing changes how fast a step is, not what it learns.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle

import torch

from rankwise.records import TrainConfig
from rankwise.step import IGNORE, Batch, collate
from rankwise.text.masks import Encoded
from rankwise.train.packing import best_fit_decreasing


class Batching:
    """Rows -> batches, on the CPU.

    Without packing rows are right-padded, the shortest together. With packing, documents lie end to end in rows of at
    most `max_length` tokens.

    Args:
        flat: the attention takes the documents one by one, so that all packed rows of a batch may be one long row,
            without padding.
    """

    def __init__(self, config: TrainConfig, pad_token_id: int, *, flat: bool):
        self.packing, self.length, self.effective = config.packing, config.max_length, config.effective_batch
        self.pad, self.flat = pad_token_id, flat

    def step(self, rows: Sequence[Encoded], size: int) -> list[Batch]:
        """The batches of one optimizer step over `rows`, none of them longer than `max_length`.

        Args:
            size: rows in one forward pass; with packing, rows of documents.
        """
        if not self.packing:
            ordered = sorted(rows, key=lambda row: len(row.ids))
            return [self.one(ordered[i : i + size]) for i in range(0, len(ordered), size)]
        lengths = [len(row.ids) for row in rows]
        packed = best_fit_decreasing(lengths, self.length * size if self.flat else self.length)
        documents = [[rows[i] for i in row] for row in packed]
        at_once = 1 if self.flat else size
        return [collate_packed(documents[i : i + at_once], self.pad) for i in range(0, len(documents), at_once)]

    def one(self, rows: Sequence[Encoded]) -> Batch:
        """All of `rows` in one batch."""
        if self.packing:
            return collate_packed([rows] if self.flat else [[row] for row in rows], self.pad)
        return collate([row.ids for row in rows], [row.labels for row in rows], self.pad)

    def fullest(self, rows: Sequence[Encoded]) -> Batch:
        """A batch as large as one of so many rows can be, if these are the longest: packed rows are filled up with more
        of them.
        """
        if not self.packing:
            return self.one(rows)
        most = min(self.length * len(rows), self.effective * max(len(row.ids) for row in rows))
        if self.flat:
            return collate_packed([_filled(rows, most)], self.pad)
        return collate_packed([_filled(rows, -(-most // len(rows)))] * len(rows), self.pad)


def _filled(rows: Sequence[Encoded], tokens: int) -> list[Encoded]:
    """Documents of `tokens` tokens together, the last one cut."""
    found: list[Encoded] = []
    for row in cycle(rows):
        left = tokens - sum(len(document.ids) for document in found)
        if left <= 0:
            return found
        found.append(replace(row, ids=row.ids[:left], labels=row.labels[:left]))
    return found


def collate_packed(rows: Sequence[Sequence[Encoded]], pad_token_id: int) -> Batch:
    """Documents end to end in each row -> Batch. No document's first token is predicted from the one before it."""
    ids = [[t for document in row for t in document.ids] for row in rows]
    labels = [[t for document in row for t in (IGNORE, *document.labels[1:])] for row in rows]
    plain = collate(ids, labels, pad_token_id)
    longest = plain.input_ids.shape[1]
    positions = torch.zeros_like(plain.input_ids)
    for at, row in enumerate(rows):
        lengths = [len(document.ids) for document in row]
        lengths.append(longest - sum(lengths))  # the padding is a document of its own
        positions[at] = torch.cat([torch.arange(n) for n in lengths])
    return Batch(plain.input_ids, None, plain.keep, plain.targets, plain.tokens, plain.supervised, positions)
