"""Training rows that are set aside: learning rates are chosen on them, so that no held-out row has a say in it."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rankwise.records import Job
from rankwise.text.dataset import Dataset, training_rows
from rankwise.text.formats import Row
from rankwise.text.masks import Encoded, LazyRows
from rankwise.text.split import last_held_out, split_key
from rankwise.text.template import ChatText
from rankwise.text.tokens import TokenRows

MOST = 8  # rows; they are read about five times in each run of a comparison
SHARE = 0.1  # of the training rows, at most


class Some(LazyRows):
    """Some of the rows of a list.

    Attributes:
        lengths, supervised: of each, tokens and labelled tokens.
    """

    def __init__(self, rows: TokenRows, numbers: Sequence[int]):
        self.rows, self.numbers = rows, numbers
        self.lengths = array("q", (rows.lengths[i] for i in numbers))
        self.supervised = array("q", (rows.supervised[i] for i in numbers))

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int) -> Encoded:
        return self.rows[self.numbers[index]]


def set_aside(data: Dataset, seed: int) -> tuple[Dataset, list[Encoded], int]:
    """(the data without the rows set aside, these rows, the highest `split_key` of one of them). They are the next
    ones after the held-out rows in the order by which those were chosen, so equal rows stay on one side.

    Raises:
        DataError: fewer than two different training rows.
    """
    train = data.train
    assert isinstance(train, TokenRows), "rows of a job come from the cache"
    every = train.store.keys(seed)
    keys = array("Q", (every[train.store.columns["rows"][text]] for text in train.texts))
    count = len(set(keys))
    where = str(train.store.paths[0])
    last = last_held_out(keys, min(SHARE, MOST / max(1, count)), where)
    aside = [i for i, key in enumerate(keys) if key <= last]
    kept = Some(train, array("q", (i for i, key in enumerate(keys) if key > last)))
    return replace(data, train=kept), [train[i] for i in aside], last


def rows_learned(job: Job, chat: ChatText, seed: int, last: int) -> Iterator[Row]:
    """The training rows that are not set aside, as messages, one at a time. Raises DataError.

    Args:
        last: the highest key of a row that is.
    """
    return (row for row in training_rows(job, chat, seed) if split_key(row, seed) > last)
