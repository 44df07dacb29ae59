"""Before a comparison runs: the smallest difference that it will be able to tell."""

from dataclasses import dataclass
from functools import cache
from math import sqrt

import numpy as np

from rankwise.compare.crossed import Parts, half_width
from rankwise.compare.stats import ERROR, FEWEST_ITEMS, POWER
from rankwise.records import Detectable

REPEATS = 20_000


@dataclass(frozen=True)
class Design:
    """What a comparison asks, and of whom.

    Attributes:
        items: of the metric.
        seeds: of each trained arm.
        arms: how many are compared; each pair is a contrast.
        trained: how many of them have seeds.
    """

    items: int
    seeds: int
    arms: int
    trained: int


def detectable(
    metric: str, unit: str, design: Design, spread: float | None = None, source: str = ""
) -> Detectable | None:
    """The difference of two trained arms that is told in 80 % of repeats, where all pairs of arms are asked about.

    Shares: the worst case, both near one half and no item easier than another; either all of an answer is chance of
    the single run, or none of it is, whichever tells less. Losses: rows of two arms differ by as much as the base's
    rows do from each other. What a seed does to all answers at once is not known before and comes on top.

    Args:
        unit: share, or that of a loss.
        spread: standard deviation of the base's own rows in `unit`; not needed for shares.
        source: of the spread.

    Returns:
        None where nothing can be said: no spread, fewer than two arms, fewer than 6 items.
    """
    if design.items < FEWEST_ITEMS or design.arms < 2 or (unit != "share" and spread is None):
        return None
    units = widths(design)
    if unit == "share":
        return Detectable(
            metric=metric,
            unit=unit,
            items=design.items,
            difference=_of_shares(units, design.items),
            source=f"worst case of a share near one half; {_words(design)}",
        )
    return Detectable(
        metric=metric,
        unit=unit,
        items=design.items,
        difference=units * float(spread or 0.0),
        source=f"if rows of two arms differ as the base's rows do ({source}); {_words(design)}",
    )


def _words(design: Design) -> str:
    seeds = "1 seed: of models, not of methods" if design.seeds < 2 and design.trained else f"{design.seeds} seeds"
    return f"{design.items} items, {seeds}, {design.arms} arms; what a seed does to all answers at once comes on top"


def _of_shares(units: float, items: int) -> float:
    """Variances of two shares 1/2 +- d/2 are (1 - d^2) / 4 each: solve d = units sqrt((1 - d^2) / 2) for d."""
    squared = units**2 / 2 * ((items + 2) / items) ** 2  # the two made-up items draw the centre to 0
    return sqrt(squared / (1 + squared))


@cache
def widths(design: Design) -> float:
    """The difference that is told in 80 % of repeats, in standard deviations of the difference of one item.

    From draws of the variances: the quantile of (half width - chance) is the difference itself.
    """
    arms = min(2, design.trained)
    steady = _quantile(design, seeds=1, df=0)
    if design.seeds < 2 or arms == 0:
        return steady
    return max(steady, _quantile(design, seeds=design.seeds, df=design.trained * (design.seeds - 1)))


def _quantile(design: Design, seeds: int, df: int) -> float:
    """Where answers of one item are alike between seeds (df = 0), or drawn anew by each of them."""
    draws, items = np.random.default_rng(0), design.items
    variance = 1 / (items * seeds)
    parts = Parts(
        estimate=np.zeros(REPEATS),
        centre=np.zeros(REPEATS),
        items=variance * draws.chisquare(items - 1, REPEATS) / (items - 1),
        items_df=items - 1,
        seeds=_seeds(design, variance, draws) if df else np.zeros(REPEATS),
        seeds_df=df,
        rest=np.full(REPEATS, variance if df else 0.0),
    )
    needed = half_width(parts, ERROR, design.arms) - draws.normal(0.0, sqrt(variance), REPEATS)
    return float(np.quantile(needed, POWER))


def _seeds(design: Design, variance: float, draws: np.random.Generator) -> np.ndarray:
    """Variance of the difference as the seeds' means tell it: the larger of all trained arms' and of the pair's."""
    by_arm = draws.chisquare(design.seeds - 1, (REPEATS, design.trained)) / (design.seeds - 1)
    own = by_arm[:, : min(2, design.trained)]
    return np.asarray(variance * np.maximum(by_arm.mean(-1), own.mean(-1)))
