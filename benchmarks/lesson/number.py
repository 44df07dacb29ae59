"""What an experiment hands to its rules: one number a seed, and the interval of their mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.lesson.verdict import hull, over_items, over_seeds


@dataclass(frozen=True)
class Number:
    """Paired values by seed; `interval` None where there are too few."""

    values: list[float]
    interval: tuple[float, float] | None


Numbers = Mapping[str, Number]


def of_seeds(values: Sequence[float]) -> Number:
    return Number(list(values), over_seeds(values))


def of_items(first: Sequence[Sequence[bool]], second: Sequence[Sequence[bool]]) -> Number:
    """First minus second, in points of the share that is right; a list of test items a seed, the same for both."""
    values = [100 * (sum(a) - sum(b)) / len(a) for a, b in zip(first, second, strict=True)]
    pairs = [pair for a, b in zip(first, second, strict=True) for pair in zip(a, b, strict=True)]
    low, high = over_items(pairs)
    return Number(values, hull(over_seeds(values), (100 * low, 100 * high)))
