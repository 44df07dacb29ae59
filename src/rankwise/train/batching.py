"""The rows of one optimizer step as batches of one forward pass each: packed end to end, or similar lengths together.

Whatever the batches, the optimizer sees the same rows in a step, and its loss is their mean over supervised tokens; so
packing changes how fast a step is, not what it learns.
"""

from collections.abc import Sequence

import torch

from rankwise.records import TrainConfig
from rankwise.step import IGNORE, Batch, collate
from rankwise.text.masks import Encoded
from rankwise.train.packing import best_fit_decreasing


def batches_of(rows: Sequence[Encoded], config: TrainConfig, pad_token_id: int, *, flat: bool) -> list[Batch]:
    """The batches of one step, on the CPU.

    Without packing, at most `per_device_train_batch_size` rows, the shortest together and right-padded. With packing,
    documents end to end in rows of at most `max_length` tokens, as many rows as that in a batch.

    Args:
        rows: of one optimizer step, none longer than `max_length`.
        flat: the attention takes the documents one by one, so that all rows of a packed batch may be one long row,
            without padding.
    """
    size, length = config.per_device_train_batch_size, config.max_length
    if not config.packing:
        ordered = sorted(rows, key=lambda row: len(row.ids))
        groups = [ordered[i : i + size] for i in range(0, len(ordered), size)]
        return [collate([r.ids for r in g], [r.labels for r in g], pad_token_id) for g in groups]
    lengths = [len(row.ids) for row in rows]
    packed = [[rows[i] for i in row] for row in best_fit_decreasing(lengths, length * size if flat else length)]
    at_once = 1 if flat else size
    return [collate_packed(packed[i : i + at_once], pad_token_id) for i in range(0, len(packed), at_once)]


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
