"""Which rows each step sees: general rows mixed in by share of supervised tokens, and an order that follows from the
seed alone, so that a resumed run needs no data-loader state."""

import random
from array import array
from collections.abc import Callable, Sequence

from rankwise.text.fitting import lengths_of, supervised_of
from rankwise.text.masks import Encoded, LazyRows


class Mixed(LazyRows):
    """Task rows, then the picked ones of the general rows; each is read when it is asked for.

    Attributes:
        lengths, supervised: of each, tokens and labelled tokens.
    """

    def __init__(self, task: Sequence[Encoded], general: Sequence[Encoded], picked: Sequence[int]):
        self.task, self.general, self.picked = task, general, picked
        self.lengths, self.supervised = (self._column(of) for of in (lengths_of, supervised_of))

    def _column(self, of: Callable[[Sequence[Encoded]], Sequence[int]]) -> "array[int]":
        column, general = array("q", of(self.task)), of(self.general)
        column.extend(general[number] for number in self.picked)
        return column

    def __len__(self) -> int:
        return len(self.task) + len(self.picked)

    def read(self, index: int) -> Encoded:
        beyond = index - len(self.task)
        return self.task[index] if beyond < 0 else self.general[self.picked[beyond]]


def mix(task: Sequence[Encoded], general: Sequence[Encoded], share: float, seed: int) -> Mixed:
    """Task rows plus as many general rows as make `share` of all supervised tokens general (general rows repeat if
    short).
    """
    if share <= 0 or not general:
        return Mixed(task, [], [])
    wanted = share / (1 - share) * sum(supervised_of(task))
    supervised = supervised_of(general)
    shuffled = random.Random(f"general-{seed}").sample(range(len(general)), len(general))
    picked: list[int] = []
    got = 0
    while got + supervised[shuffled[len(picked) % len(shuffled)]] / 2 < wanted:
        picked.append(shuffled[len(picked) % len(shuffled)])
        got += supervised[picked[-1]]
    return Mixed(task, general, picked)


class Order:
    """Rows of optimizer step s: a stream of epochs, each shuffled by (seed, epoch), cut into batches; the last may
    be short.
    """

    def __init__(self, rows: int, epochs: float, batch: int, seed: int):
        self.rows, self.batch, self.seed = rows, batch, seed
        self.total = max(1, round(rows * epochs))
        self._epochs: dict[int, list[int]] = {}

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return -(-self.total // self.batch)

    def step(self, number: int) -> list[int]:
        """Row indices of step `number`, counted from 0. Beyond `total` the stream goes on (max_steps may ask for
        more).
        """
        first = number * self.batch
        last = first + self.batch
        if first < self.total < last:
            last = self.total
        return [self._row(position) for position in range(first, last)]

    def _row(self, position: int) -> int:
        epoch, index = divmod(position, self.rows)
        if epoch not in self._epochs:
            shuffled = list(range(self.rows))
            random.Random(f"order-{self.seed}-{epoch}").shuffle(shuffled)
            self._epochs = {epoch - 1: self._epochs.get(epoch - 1, []), epoch: shuffled}
            if not self._epochs[epoch - 1]:
                del self._epochs[epoch - 1]
        return self._epochs[epoch][index]
