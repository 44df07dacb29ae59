"""Green, amber, red: what a difference from the base means (science.md C10; reasons in docs/watch.md).

A level is decided by the value and its interval together: green and red, which are acted on, must each shut the other
one out; what lies between is amber.

Cross-entropy is judged in nats of rise for every base alike: 0.03 nats are 3 % of perplexity wherever it began. A
share of right answers is judged against what this base has above guessing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rankwise.records import Interval, Level, Slice

RED_NATS = 0.10  # C10: E12's rank-64 rsLoRA rose by 0.111, rank 32 by 0.050, full fine-tuning by 0.030
RED_TIMES = RED_NATS / 0.03  # of the budget, where that is larger than C10's own
RED_SHARE = 1 / 3  # of what the base has above guessing
FEWEST_ITEMS = 6  # with fewer, chance alone moves all of them the same way in more than 5 % of cases (sign test)
Metric = Literal["general_loss", "choice"]
ORDER: tuple[Level, ...] = ("unknown", "green", "amber", "red")


@dataclass(frozen=True)
class Limits:
    """Where a slice stops being green, and where it becomes red; in its unit, as a loss of ability (above 0 is worse).

    Attributes:
        amber: None: as soon as chance does not explain the difference.
        red: None: this base has nothing to lose in this slice.
    """

    amber: float | None
    red: float | None


def nats_limits(budget: float) -> Limits:
    """Of a rise of cross-entropy, nats per token, under `forgetting.budget_nats`."""
    return Limits(budget, max(RED_NATS, RED_TIMES * budget))


def choice_limits(baseline: float, chance: float, items: int) -> Limits:
    """Of a fall of the share of right answers. A base that cannot be told from guessing (one standard error and 1.64 of
    it) has nothing to lose that this slice could show.
    """
    margin = baseline - chance
    error = (chance * (1 - chance) / items) ** 0.5
    return Limits(None, RED_SHARE * margin if margin > 1.64 * error else None)


def limits_of(metric: Metric, budget: float, baseline: float, chance: float | None, items: int) -> Limits:
    """Of a slice, for this base. Without a known chance, guessing is taken to get nothing right."""
    return nats_limits(budget) if metric == "general_loss" else choice_limits(baseline, chance or 0.0, items)


def level(metric: Metric, difference: float, interval: Interval, limits: Limits) -> Level:
    """The level of one slice.

    Args:
        difference: value - baseline. interval: of it, 95 %.
    """
    if limits.red is None:
        return "unknown"
    sign = 1 if metric == "general_loss" else -1
    lost = sign * difference
    least, most = sorted(sign * end for end in interval)
    amber = 0.0 if limits.amber is None else limits.amber
    if lost > limits.red and least > amber:
        return "red"
    if limits.amber is None:
        return "amber" if least > 0 else "green"
    return "green" if lost <= amber and most <= limits.red else "amber"


def slice_of(
    name: str,
    metric: Metric,
    *,
    items: int,
    baseline: float,
    value: float,
    interval: Interval,
    limits: Limits,
) -> Slice:
    """One slice with its level; too few items say nothing."""
    enough = items >= FEWEST_ITEMS
    return Slice(
        name=name,
        metric=metric,
        unit="nats per token" if metric == "general_loss" else "share",
        items=items,
        baseline=baseline,
        value=value,
        difference=value - baseline,
        interval=interval,
        level=level(metric, value - baseline, interval, limits) if enough else "unknown",
    )


def worst(levels: Iterable[Level]) -> Level:
    """The gravest; a slice that cannot tell hides no other."""
    return max(levels, key=ORDER.index, default="unknown")
