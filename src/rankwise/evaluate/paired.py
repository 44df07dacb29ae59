"""Two models on the same items: a Comparison with intervals that know the pairs. `cannot tell` is a possible answer."""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, Literal

import numpy as np
from scipy.stats import binomtest, bootstrap, norm, t

from rankwise.records import Comparison, Interval

LEVEL = 0.95
RESAMPLES = 2000
# With fewer pairs, even if all of them agree, chance alone does so in more than 5 % of cases (sign test).
FEWEST_ROWS = 6


def compare_shares(
    metric: str, base: Sequence[bool], tuned: Sequence[bool], source: str, *, higher_is_better: bool = True
) -> Comparison:
    """Share of items of which something is true for each.

    Wilson intervals for each share; for the paired difference the adjusted Wald interval of Bonett and Price (2012),
    which keeps its width when all items agree.
    """
    n = len(base)
    gained = sum(t and not b for b, t in zip(base, tuned, strict=True))
    lost = sum(b and not t for b, t in zip(base, tuned, strict=True))
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = float(norm.ppf(0.5 + LEVEL / 2)) * sqrt((up + down - (up - down) ** 2) / (n + 2))
    interval = (max(-1.0, up - down - half), min(1.0, up - down + half))
    return Comparison(
        metric=metric,
        unit="share",
        items=n,
        base=sum(base) / n,
        base_interval=wilson(base),
        tuned=sum(tuned) / n,
        tuned_interval=wilson(tuned),
        difference=(sum(tuned) - sum(base)) / n,
        difference_interval=interval,
        answer=answer_of(interval, higher_is_better=higher_is_better),
        source=f"{source}; Wilson intervals, difference by Bonett and Price 2012 (paired), 95 %",
    )


def compare_scores(
    metric: str,
    base: Sequence[float],
    tuned: Sequence[float],
    source: str,
    *,
    unit: str = "share",
    higher_is_better: bool = True,
) -> Comparison:
    """Mean score of the items; shares that are all 0 or 1 are compared as `compare_shares` does.

    Args:
        unit: share, where scores lie between 0 and 1; else score.
    """
    if unit == "share" and {*base, *tuned} <= {0.0, 1.0}:
        sides = [[value == 1.0 for value in side] for side in (base, tuned)]
        return compare_shares(metric, sides[0], sides[1], source, higher_is_better=higher_is_better)
    values = [np.array(side, dtype=float) for side in (base, tuned)]
    weights = np.ones(len(base))
    intervals = [resampled(side, weights) for side in (*values, values[1] - values[0])]
    if unit == "share":
        intervals[:2] = [(max(0.0, low), min(1.0, high)) for low, high in intervals[:2]]
    return Comparison(
        metric=metric,
        unit=unit,
        items=len(base),
        base=float(values[0].mean()),
        base_interval=intervals[0],
        tuned=float(values[1].mean()),
        tuned_interval=intervals[1],
        difference=float(values[1].mean() - values[0].mean()),
        difference_interval=intervals[2],
        answer=answer_of(intervals[2], higher_is_better=higher_is_better)
        if len(base) >= FEWEST_ROWS
        else "cannot tell",
        source=f"{source}; expanded percentile bootstrap over items, {RESAMPLES} resamples, paired, 95 %",
    )


def compare_losses(
    metric: str, base: Sequence[tuple[float, int]], tuned: Sequence[tuple[float, int]], source: str
) -> Comparison:
    """Cross-entropy per token over rows; less is better.

    Args:
        base, tuned: (summed nats, tokens) of each row, same rows in the same order.
    """
    tokens = np.array([count for _, count in base], dtype=float)
    sums = [np.array([loss for loss, _ in rows]) for rows in (base, tuned)]
    intervals = [resampled(values, tokens) for values in (*sums, sums[1] - sums[0])]
    means = [float(values.sum() / tokens.sum()) for values in sums]
    return Comparison(
        metric=metric,
        unit="nats per token",
        items=len(base),
        base=means[0],
        base_interval=intervals[0],
        tuned=means[1],
        tuned_interval=intervals[1],
        difference=means[1] - means[0],
        difference_interval=intervals[2],
        answer=answer_of(intervals[2], higher_is_better=False) if len(base) >= FEWEST_ROWS else "cannot tell",
        source=f"{source}; expanded percentile bootstrap over rows, {RESAMPLES} resamples, paired, 95 %",
    )


def wilson(right: Sequence[bool]) -> Interval:
    """Wilson's interval of a share."""
    low, high = binomtest(sum(right), len(right)).proportion_ci(LEVEL, method="wilson")
    return float(low), float(high)


def resampled(sums: np.ndarray, tokens: np.ndarray) -> Interval:
    """Interval of sum(sums) / sum(tokens) when rows are drawn again; `tokens` may be any weight that is nowhere
    negative and not 0 for all.

    The percentiles are moved out for small samples (Hesterberg 2015, section 5.4), whose plain interval is too narrow.
    """
    return bootstrapped((sums, tokens), lambda s, count, axis=-1: s.sum(axis=axis) / count.sum(axis=axis))


def bootstrapped(samples: tuple[np.ndarray, ...], statistic: Callable[..., Any]) -> Interval:
    """Interval of `statistic(*samples, axis=-1)` when items are drawn again, the same ones of each sample; as
    `resampled`.
    """
    n = len(samples[0])
    if n < 2:
        value = float(statistic(*samples, axis=-1))
        return value, value
    level = float(2 * norm.cdf(sqrt(n / (n - 1)) * t.ppf(0.5 + LEVEL / 2, n - 1)) - 1)
    outcome = bootstrap(
        samples,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=min(level, 1 - 1e-9),
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return float(outcome.confidence_interval.low), float(outcome.confidence_interval.high)


def answer_of(interval: Interval, *, higher_is_better: bool) -> Literal["better", "worse", "cannot tell"]:
    """What the interval of a difference allows to say."""
    if interval[0] <= 0 <= interval[1]:
        return "cannot tell"
    return "better" if (interval[0] > 0) == higher_is_better else "worse"
