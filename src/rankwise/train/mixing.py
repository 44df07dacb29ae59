"""Which rows each step sees: general rows mixed in by share of supervised tokens, and an order that follows from the
seed alone, so that a resumed run needs no data-loader state."""

import random
from collections.abc import Sequence

from rankwise.text.masks import Encoded


def mix(task: Sequence[Encoded], general: Sequence[Encoded], share: float, seed: int) -> list[Encoded]:
    """Task rows plus as many general rows as make `share` of all supervised tokens general (general rows repeat if
    short).
    """
    if share <= 0 or not general:
        return list(task)
    wanted = share / (1 - share) * sum(row.supervised for row in task)
    shuffled = random.Random(f"general-{seed}").sample(list(general), len(general))
    mixed, got, i = list(task), 0, 0
    while got + shuffled[i % len(shuffled)].supervised / 2 < wanted:
        mixed.append(shuffled[i % len(shuffled)])
        got += shuffled[i % len(shuffled)].supervised
        i += 1
    return mixed


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
