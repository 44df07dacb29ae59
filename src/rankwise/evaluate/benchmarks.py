"""Scores of benchmarks: the interval of one, and the difference of two on the same items. Numbers in, records out."""

from collections.abc import Callable, Mapping, Sequence
from math import log, sqrt
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.stats import norm

from rankwise.errors import BenchmarkError
from rankwise.evaluate.paired import FEWEST_ROWS, RESAMPLES, bootstrapped, compare_shares, wilson
from rankwise.records import BenchmarkResult, BenchmarkScore, Interval
from rankwise.records.benchmark import Aggregation

Z = float(norm.ppf(0.975))
# The mean of the outcomes, weighted, as lm-evaluation-harness turns it into the value (lm_eval/api/metrics.py).
SCALES: dict[str, Callable[[Any], Any]] = {
    "mean": lambda mean: mean,
    "perplexity": lambda mean: np.exp(-mean),
    "bits_per_byte": lambda mean: -mean / log(2),
}
Key = tuple[str, str, str]


class Difference(NamedTuple):
    interval: Interval | None
    source: str


def interval_of(
    aggregation: Aggregation, outcomes: Sequence[float], weights: Sequence[float], value: float, stderr: float | None
) -> Interval | None:
    """95 % of one score: Wilson's of a share, else by drawing items again, else value +- 1.96 standard errors."""
    if right_or_wrong(aggregation, outcomes):
        return wilson([outcome == 1 for outcome in outcomes])
    if len(outcomes):
        return bootstrapped((np.array(outcomes), np.array(weights)), _scaled(aggregation))
    return None if stderr is None else (value - Z * stderr, value + Z * stderr)


def right_or_wrong(aggregation: Aggregation, outcomes: Sequence[float]) -> bool:
    """Is every item either right (1) or wrong (0)?"""
    return aggregation == "mean" and len(outcomes) > 0 and set(outcomes) <= {0.0, 1.0}


def compared(base: Sequence[BenchmarkScore] | None, tuned: Sequence[BenchmarkScore]) -> list[BenchmarkResult]:
    """All scores of one task or group, each beside that of the base; None: there is no base.

    Raises:
        BenchmarkError: the two were asked other items, or in another way.
    """
    if base is None:
        return [_alone(score) for score in tuned]
    before, after = _by_key(base), _by_key(tuned)
    return [_result(before[key], score, before, after) for key, score in after.items() if key in before]


def _by_key(scores: Sequence[BenchmarkScore]) -> dict[Key, BenchmarkScore]:
    return {(score.task, score.metric, score.filter): score for score in scores}


def _alone(score: BenchmarkScore) -> BenchmarkResult:
    return BenchmarkResult(base=None, tuned=score, difference=None, interval=None, answer=None, source="")


def _result(
    base: BenchmarkScore, tuned: BenchmarkScore, before: Mapping[Key, Any], after: Mapping[Key, Any]
) -> BenchmarkResult:
    if base.data_hash != tuned.data_hash or base.items != tuned.items:
        raise BenchmarkError(
            f"{tuned.task}: the two models were not asked the same items in the same way",
            expected=f"the items and prompts with the sha256 {base.data_hash[:12]}",
            fix="run the task again for both",
        )
    found = _of_subtasks(base, before, after) if base.subtasks else _of_items(base, tuned)
    return BenchmarkResult(
        base=base,
        tuned=tuned,
        difference=tuned.value - base.value,
        interval=found.interval,
        answer=_answer(found.interval, tuned),
        source=found.source,
    )


def _of_items(base: BenchmarkScore, tuned: BenchmarkScore) -> Difference:
    if all(right_or_wrong(score.aggregation, score.outcomes) for score in (base, tuned)):
        right = [[outcome == 1 for outcome in score.outcomes] for score in (base, tuned)]
        return Difference(
            compare_shares(base.metric, right[0], right[1], "").difference_interval,
            "paired item by item, Bonett and Price 2012, 95 %",
        )
    if not base.outcomes or not tuned.outcomes:
        return _independent(base, tuned)
    scaled = _scaled(base.aggregation)
    interval = bootstrapped(
        (np.array(base.outcomes), np.array(tuned.outcomes), np.array(base.weights)),
        lambda b, t, w, axis=-1: scaled(t, w, axis) - scaled(b, w, axis),
    )
    return Difference(interval, f"expanded percentile bootstrap over items, {RESAMPLES} resamples, paired, 95 %")


def _scaled(aggregation: Aggregation) -> Callable[..., Any]:
    """(outcomes, weights, axis) -> the value that the harness makes of them."""
    scale = SCALES[aggregation]
    return lambda outcomes, weights, axis=-1: scale(outcomes.sum(axis=axis) / weights.sum(axis=axis))


def _of_subtasks(base: BenchmarkScore, before: Mapping[Key, Any], after: Mapping[Key, Any]) -> Difference:
    """Items are paired within each task, and the tasks' variances added with their weights squared."""
    variance = 0.0
    for task, weight in base.subtasks.items():
        key = (task, base.metric, base.filter)
        one, other = before[key], after[key]
        if one.aggregation != "mean" or one.items < 2:
            return _independent(base, after[(base.task, base.metric, base.filter)])
        variance += weight**2 * float(np.var(np.subtract(other.outcomes, one.outcomes), ddof=1)) / one.items
    middle, half = after[(base.task, base.metric, base.filter)].value - base.value, Z * sqrt(variance)
    return Difference((middle - half, middle + half), "paired item by item within each task, normal, 95 %")


def _independent(base: BenchmarkScore, tuned: BenchmarkScore) -> Difference:
    """Where items cannot be paired: as if other items had been asked, which is wider than need be."""
    if base.stderr is None or tuned.stderr is None:
        return Difference(None, "the harness gives neither a number an item nor a standard error for this metric")
    middle, half = tuned.value - base.value, Z * sqrt(base.stderr**2 + tuned.stderr**2)
    return Difference((middle - half, middle + half), "two standard errors as if independent, normal, 95 %")


def _answer(interval: Interval | None, score: BenchmarkScore) -> Literal["better", "worse", "cannot tell"]:
    if interval is None or score.higher_is_better is None or score.items < FEWEST_ROWS:
        return "cannot tell"
    if interval[0] <= 0 <= interval[1]:
        return "cannot tell"
    return "better" if (interval[0] > 0) == score.higher_is_better else "worse"
