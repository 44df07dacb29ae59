"""Trials of several arms -> Contrasts: which of two is better on which metric, or that nobody can tell."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from scipy.special import ndtri

from rankwise.compare.crossed import (
    Array,
    Parts,
    half_width,
    p_value,
    parts_of_difference,
    parts_of_mean,
    pooled,
    weights_of,
)
from rankwise.errors import RunError
from rankwise.records import Contrast, Interval, Scores, Trial

ERROR = 0.05  # of a pair's interval; of any wrong claim about one metric
POWER = 0.8
# With fewer items, even if all of them agree, chance alone does so in more than 5 % of cases (sign test).
FEWEST_ITEMS = 6
# Where the difference is a smaller share of what could be told, more items are no way to tell it.
HARDLY_ANY = 0.01


@dataclass(frozen=True)
class Table:
    """One metric of all arms that have it.

    Attributes:
        values: arm -> (seeds, items), of a loss in nats per token; with dimensions before them, of many comparisons at
            once.
        share: of each item in a mean.
        trained: arms that have seeds; an untrained one has a single row that stands for every seed.
    """

    about: Scores
    values: dict[str, Array]
    share: Array
    trained: frozenset[str]

    @property
    def bounded(self) -> bool:
        return self.about.unit == "share"

    @property
    def items(self) -> int:
        return len(self.share)


def contrasts(trials: Sequence[Trial]) -> tuple[Contrast, ...]:
    """All pairs of arms on all metrics, arms and metrics in the order in which they come.

    Raises:
        RunError: two models were not asked the same items.
    """
    return tuple(found for table in tables(trials) for found in contrasts_of(table))


def tables(trials: Sequence[Trial]) -> list[Table]:
    """One for each metric, of final runs alone. Raises RunError as `contrasts` does."""
    final = [trial for trial in trials if trial.purpose == "final"]
    metrics = dict.fromkeys(scores.metric for trial in final for scores in trial.scores)
    return [_table(metric, final) for metric in metrics]


def _table(metric: str, final: Sequence[Trial]) -> Table:
    found: dict[str, list[Scores]] = {}
    for trial in final:
        found.setdefault(trial.arm, []).extend(scores for scores in trial.scores if scores.metric == metric)
    found = {arm: several for arm, several in found.items() if several}
    about = next(iter(found.values()))[0]
    for arm, several in found.items():
        if any(len(scores.values) != len(about.values) or scores.weights != about.weights for scores in several):
            raise RunError(
                f"{arm} was not asked the same items on {metric} as {next(iter(found))}",
                expected="the same items, in the same order, of every model of a comparison",
                fix="delete the trials of this arm in `trials/` and run the comparison again",
            )
    return Table(
        about=about,
        values={arm: np.array([_by_item(scores) for scores in several]) for arm, several in found.items()},
        share=weights_of(len(about.values), about.weights),
        trained=frozenset(trial.arm for trial in final if trial.steps > 0),
    )


def _by_item(scores: Scores) -> Array:
    """The mean of each item: of a loss, nats per token. An item without a token weighs nothing, whatever is said."""
    values = np.array(scores.values, dtype=float)
    if scores.weights is None:
        return values
    tokens = np.array(scores.weights, dtype=float)
    return np.asarray(np.divide(values, tokens, out=np.zeros_like(values), where=tokens > 0))


def contrasts_of(table: Table) -> list[Contrast]:
    """All pairs of arms on one metric."""
    return [_contrast(table, pair) for pair in combinations(table.values, 2)]


def difference(table: Table, first: str, second: str) -> Parts:
    pool = pooled([table.values[arm] for arm in table.values if arm in table.trained], table.share)
    trained = (first in table.trained, second in table.trained)
    return parts_of_difference(
        table.values[first], table.values[second], table.share, pool, trained, bounded=table.bounded
    )


def told(table: Table, parts: Parts) -> Array:
    """Does the interval that holds for all pairs of arms together leave 0 out? Arrays of bool."""
    half = half_width(parts, ERROR, len(table.values))
    return np.asarray((np.abs(parts.centre) > half) & (table.items >= FEWEST_ITEMS))


def mean(table: Table, arm: str) -> tuple[float, Interval]:
    """The mean of one arm over items and seeds, with its 95 % interval; within 0 and 1 for shares, not below 0 for a
    cross-entropy.
    """
    pool = pooled([table.values[name] for name in table.values if name in table.trained], table.share)
    parts = parts_of_mean(table.values[arm], table.share, pool, arm in table.trained, bounded=table.bounded)
    loss = (0.0, math.inf) if table.about.unit.startswith("nats") else None
    return float(parts.estimate), _interval(parts, 2, (0.0, 1.0) if table.bounded else loss)


def _interval(parts: Parts, arms: int, limits: Interval | None) -> Interval:
    half = float(half_width(parts, ERROR, arms))
    low, high = float(parts.centre) - half, float(parts.centre) + half
    if limits is not None:
        low, high = max(limits[0], low), min(limits[1], high)
    return low, high


def _contrast(table: Table, pair: tuple[str, str]) -> Contrast:
    parts, arms = difference(table, *pair), len(table.values)
    limits = (-1.0, 1.0) if table.bounded else None
    seeds = [table.values[arm].shape[-2] for arm in pair if arm in table.trained]
    answer: Literal["better", "worse", "cannot tell"] = "cannot tell"
    if told(table, parts):
        answer = "better" if (float(parts.centre) > 0) == table.about.higher_is_better else "worse"
    return Contrast(
        metric=table.about.metric,
        unit=table.about.unit,
        side=table.about.side,
        first=pair[0],
        second=pair[1],
        difference=float(parts.estimate),
        interval=_interval(parts, 2, limits),
        adjusted=_interval(parts, arms, limits),
        p_value=float(p_value(parts, arms)),
        answer=answer,
        items=table.items,
        seeds=min(seeds, default=1),
        more_items=None if answer != "cannot tell" else more_items(parts, table.items, arms),
        source=_source(table, parts, bool(seeds)),
    )


def _source(table: Table, parts: Parts, has_seeds: bool) -> str:
    rows = f"{table.items} items{' weighted by tokens' if table.about.weights else ''}, paired"
    if parts.seeds_df:
        rows += f"; seeds and items crossed, seeds' noise pooled over trained arms ({parts.seeds_df} df)"
    elif has_seeds:
        rows += "; one seed: of these models, not of their methods"
    return f"{rows}; 95 %, for all pairs of {len(table.values)} arms together by Tukey's range"


def more_items(parts: Parts, items: int, arms: int) -> int | None:
    """Further items with which a difference as large as the one seen is told in 80 % of repeats, two digits.

    None where no number of them would do: seeds are the noise, or hardly any difference was seen.
    """
    size = abs(float(parts.estimate))
    if size <= HARDLY_ANY * float(half_width(parts, ERROR, arms)) or not _told_with(np.inf, parts, items, arms, size):
        return None
    low, high = items, items + 1
    while not _told_with(high, parts, items, arms, size):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _told_with(middle, parts, items, arms, size) else (middle, high)
    return _rounded_up(high - items)


def _told_with(wanted: float, parts: Parts, items: int, arms: int, size: float) -> bool:
    """Is a difference of `size` told in 80 % of repeats with `wanted` items in the place of `items`?"""
    less = items / wanted
    of_seeds = np.maximum(0.0, parts.seeds - parts.rest)  # which no item takes away
    more = replace(
        parts,
        items=parts.items * less,
        rest=parts.rest * less,
        seeds=of_seeds + parts.rest * less,
        items_df=_two_digits((parts.items_df + 1) / less - 1) if less else np.inf,
    )
    chance = np.sqrt(more.items + of_seeds)
    return bool(half_width(more, ERROR, arms) + ndtri(POWER) * chance <= size)


def _two_digits(df: float) -> float:
    """A search asks for dozens of them; t differs by less than 0.2 %."""
    return float(f"{df:.2g}")


def _rounded_up(number: int) -> int:
    """Two significant digits, upwards."""
    step = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // step) * step
