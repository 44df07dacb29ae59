"""What a comparison may spend, dealt to its arms: pure arithmetic, in FLOPs or in seconds alike.

Every trained arm gets the same allowance for its training. `sweep` short runs find its learning rate, then one run a
seed is what it is judged by. What is not training (loading, looking at the loss, answering) is taken off first, so
that no arm pays for its answers with its steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.errors import UsageError
from rankwise.records import Allowance

SWEEP_SHARE = 0.25  # steps of a run of the sweep, of those of a final run


@dataclass(frozen=True)
class Ask:
    """What one arm needs, in the unit of the budget.

    Attributes:
        step: of one optimizer step; None: it is not trained.
        beside: of everything else: loading, looks at the loss, answers, of all its runs.
    """

    name: str
    step: float | None
    beside: float


@dataclass(frozen=True)
class Share:
    """What one arm gets.

    Attributes:
        steps: of the final run of each seed; the first `odd_steps` seeds take one more, so that nothing is left over.
        sweep_steps: of each run of the sweep; 0: nothing is swept.
        total: steps of all its runs.
    """

    steps: int
    odd_steps: int
    sweep_steps: int
    total: int


def deal(budget: float, asks: Sequence[Ask], *, seeds: int, rates: int, devices: int = 1) -> dict[str, Share]:
    """Arm -> what it gets.

    The training of any two trained arms is worth the same but for less than the dearer one's step. On several devices
    arms are worked off side by side, in their order, and `budget` is what the last of them may end at.

    Args:
        seeds: final runs of each trained arm. rates: learning rates of its sweep; 1: nothing is swept.

    Raises:
        UsageError: the budget is too small for one step in each run; says the least that works.
    """
    trained = [ask for ask in asks if ask.step is not None]
    needed = least(asks, seeds=seeds, rates=rates, devices=devices)
    if budget < needed:
        raise TooSmall(budget, needed)
    allowance = _allowance(budget, asks, devices) if trained else 0.0
    return {ask.name: _share(allowance, ask.step, seeds, rates) for ask in asks}


class TooSmall(UsageError):
    """The budget does not pay for one step in each run.

    Attributes:
        needed: the least that works, in the unit of the budget.
    """

    def __init__(self, budget: float, needed: float):
        super().__init__(f"the budget of {budget:.4g} is too small", expected=f"at least {needed:.4g}")
        self.budget, self.needed = budget, needed


def least(asks: Sequence[Ask], *, seeds: int, rates: int, devices: int = 1) -> float:
    """The smallest budget with one step in every run of every arm."""
    runs = seeds + (rates if rates > 1 else 0)
    smallest = max((runs * ask.step for ask in asks if ask.step is not None), default=0.0)
    return span([_with(ask, smallest * (1 + 1e-9)) for ask in asks], devices)


def span(durations: Sequence[float], devices: int) -> float:
    """When the last one ends, if each begins as soon as a device is free."""
    free = [0.0] * devices
    for duration in durations:
        first = min(range(devices), key=free.__getitem__)
        free[first] += duration
    return max(free)


def _with(ask: Ask, allowance: float) -> float:
    return ask.beside + (allowance if ask.step is not None else 0.0)


def _allowance(budget: float, asks: Sequence[Ask], devices: int) -> float:
    """The largest allowance of each trained arm with which the last arm ends within the budget."""
    if devices == 1:
        trained = sum(ask.step is not None for ask in asks)
        return (budget - sum(ask.beside for ask in asks)) / trained
    low, high = 0.0, budget
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if span([_with(a, middle) for a in asks], devices) <= budget else (low, middle)
    return low


def _share(allowance: float, step: float | None, seeds: int, rates: int) -> Share:
    if step is None:
        return Share(0, 0, 0, 0)
    swept = rates if rates > 1 else 0
    total = max(seeds + swept, math.floor(allowance / step))  # the division may lose the last of them
    each = total / (seeds + SWEEP_SHARE * swept)
    short = max(1, math.floor(SWEEP_SHARE * each)) if swept else 0
    steps, odd = divmod(total - swept * short, seeds)
    return Share(steps, odd, short, total)


def final_steps(allowance: Allowance, number: int) -> int:
    """Steps of the final run of the seed of that number."""
    return allowance.steps + (number < allowance.odd_steps)


def learning_rates(planned: float, count: int) -> tuple[float, ...]:
    """`count` rates, each three times the one before, around the planned one."""
    return tuple(float(f"{planned * 3 ** (i - (count - 1) / 2):.3g}") for i in range(count))
