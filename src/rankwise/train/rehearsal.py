"""What would fail at hour 9 fails in minute 1: checks of a run on its own model and rows, before it goes on.

None of them changes the run: weights, optimizer and random numbers are afterwards what they were.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from heapq import nlargest
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from rankwise.errors import TrainingError
from rankwise.step import Batch
from rankwise.text.fitting import lengths_of

ROWS = 8  # 8 x 1 equals 1 x 8
# Relative difference of the gradients of the same rows, summed in another order. Dividing by each forward pass's own
# tokens, as libraries did until October 2024, is off by tens of percent as soon as lengths differ.
TOLERANCE = {"fp32": 1e-3, "bf16": 0.1}


class Long(Protocol):
    """A row of token ids."""

    @property
    def ids(self) -> Sequence[int]: ...


Row = TypeVar("Row", bound=Long)


def some_rows(rows: Sequence[Row], micro_batch: int) -> list[Row]:
    """Eight rows of different lengths, or as many as together take no more than the run's largest forward pass does;
    none where even two would.
    """
    lengths = lengths_of(rows)  # rows in the cache are not read for it
    room = micro_batch * max(lengths)
    by_length = sorted(range(len(rows)), key=lengths.__getitem__)
    for count in range(min(ROWS, len(rows)), 1, -1):
        short = [number for number in by_length if count * lengths[number] <= room]
        if len(short) >= count:
            return [rows[short[(i + 1) * len(short) // count - 1]] for i in range(count)]
    return []


class Rehearsal(Generic[Row]):
    """A few rows of a run, tried.

    Args:
        model: what trains.
        rows: all training rows.
        batch: some of them -> one forward pass.
        gradients: leaves the gradient of a step over some forward passes, of all processes, in the parameters.
        norm: of that whole gradient, where several processes have parts of it; None: one process has all of it.
        rank, world: which process of how many this is.
    """

    def __init__(
        self,
        model: nn.Module,
        rows: Sequence[Row],
        batch: Callable[[Sequence[Row]], Batch],
        gradients: Callable[[Sequence[Batch]], None],
        *,
        norm: Callable[[], Tensor] | None = None,
        rank: int = 0,
        world: int = 1,
    ):
        self.model, self.rows, self.batch, self.gradients = model, rows, batch, gradients
        self.norm, self.rank, self.world = norm, rank, world

    def accumulation_gap(self, micro_batch: int, precision: str) -> float | None:
        """How far the gradient of rows one by one lies from that of the same rows at once: relative, over the norms of
        all trained tensors, or over the one norm of several processes. These are dealt the rows in turn, and then the
        short ones to the first and the long ones to the last, so that a mean of their means shows. None where it cannot
        be told: fewer than two rows a process, attention that drops at random, or a gradient that is not finite, which
        the next step says.

        Raises TrainingError where rows one by one teach something else than the same rows at once.
        """
        rows = some_rows(self.rows, micro_batch * self.world)
        each = len(rows) // self.world
        rows = rows[: each * self.world]
        if each < 2 or draws_in_attention(self.model):
            return None
        with undisturbed(self.model), without_dropout(self.model):
            self.gradients([self.batch([row]) for row in rows[self.rank :: self.world]])
            one_by_one = self._norms()
            self.model.zero_grad(set_to_none=True)
            self.gradients([self.batch(rows[self.rank * each : (self.rank + 1) * each])])
            at_once = self._norms()
        gap = float((one_by_one - at_once).norm() / at_once.norm().clamp_min(torch.finfo(torch.float32).tiny))
        if not math.isfinite(gap):
            return None
        require_equal(gap, len(rows), precision)
        return gap

    def _norms(self) -> Tensor:
        return _norms(self.model) if self.norm is None else self.norm().detach().reshape(1).cpu()

    def longest(self, micro_batch: int) -> tuple[int, int]:
        """(rows, padded tokens a row) of the largest forward and backward pass that the run can meet, which is run."""
        longest = nlargest(micro_batch, range(len(self.rows)), key=lengths_of(self.rows).__getitem__)
        batch = self.batch([self.rows[number] for number in longest])
        with undisturbed(self.model):
            self.gradients([batch])
        rows, length = batch.input_ids.shape
        return rows, length


def require_equal(gap: float, rows: int, precision: str) -> None:
    """Raises TrainingError where n x 1 is not 1 x n."""
    if not gap <= TOLERANCE[precision]:
        raise TrainingError(
            f"the gradient of {rows} rows one by one differs from that of the same rows at once by {gap:.1%}",
            expected=f"at most {TOLERANCE[precision]:.1%}, what rounding in {precision} explains: accumulation "
            "must not change what is learned",
            fix="report this with the model's name: its forward pass depends on the other rows of a batch",
        )


def _norms(model: nn.Module) -> Tensor:
    """(trained tensors,): norms alone, because a second copy of all gradients may not fit."""
    return torch.stack([p.grad.float().norm().cpu() for p in model.parameters() if p.grad is not None])


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Random numbers after are those before, and no gradient is left."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    drawn = random.getstate()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(drawn)
        model.zero_grad(set_to_none=True)


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Training mode, which gradient checkpointing needs, with what draws switched off."""
    training = {module: module.training for module in model.modules()}
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    try:
        yield
    finally:
        for module, was in training.items():
            module.training = was


def draws_in_attention(model: nn.Module) -> bool:
    """Has the attention a dropout that is no module? Then the same rows give another gradient each time."""
    config = getattr(model, "config", None)
    return bool(getattr(config, "attention_dropout", 0.0))
