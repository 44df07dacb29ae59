"""Is it as sure as it is right? Expected calibration error of answers that come with a probability."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import bootstrap

from rankwise.evaluate.paired import FEWEST_ROWS, LEVEL, RESAMPLES, answer_of
from rankwise.records import Bin, Comparison
from rankwise.records.diagnosis import Measurement

BINS = 10


def calibration_error(sure: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error: mean distance of confidence and accuracy over ten bins of equal width, weighted by
    the items in each (Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3). 0 is perfect.

    Args:
        sure: the probability given to each answer, 0 to 1.
        right: whether it was right.
    """
    return float(_errors(np.array([sure], dtype=float), np.array([right], dtype=float))[0])


def calibration(sure: Sequence[float], right: Sequence[bool], source: str) -> Measurement:
    """The calibration error with a bootstrap over items. With few items it is too high even for a perfectly calibrated
    model, because a bin's accuracy scatters.
    """
    value = calibration_error(sure, right)
    interval = (value, value)
    if len(sure) > 1:
        outcome = bootstrap(
            (np.array(sure, dtype=float), np.array(right, dtype=float)),
            lambda s, r, axis=-1: _errors(s, r),
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            confidence_level=LEVEL,
            method="percentile",
            rng=np.random.default_rng(0),
        )
        found = outcome.confidence_interval
        interval = (min(float(found.low), value), max(float(found.high), value))
    return Measurement(
        value=value,
        interval=interval,
        unit="share",
        items=len(sure),
        source=f"{source}; {BINS} bins of equal width, percentile bootstrap over items, {RESAMPLES} resamples, 95 %",
    )


def compare_calibration(
    metric: str,
    base: Sequence[tuple[float, bool]],
    tuned: Sequence[tuple[float, bool]],
    source: str,
) -> Comparison:
    """The calibration errors of two models on the same questions; less is better. Biased as `calibration` says, both
    alike.

    Args:
        base, tuned: (probability, was it right) of each question, same questions in the same order.
    """
    errors = [calibration([s for s, _ in side], [r for _, r in side], source) for side in (base, tuned)]
    columns = [np.array(x, dtype=float) for side in (base, tuned) for x in zip(*side, strict=True)]
    interval, difference = (-1.0, 1.0), errors[1].value - errors[0].value
    if len(base) > 1:
        outcome = bootstrap(
            tuple(columns),
            lambda bs, br, ts, tr, axis=-1: _errors(ts, tr) - _errors(bs, br),
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            confidence_level=LEVEL,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        interval = (min(float(outcome.low), difference), max(float(outcome.high), difference))
    return Comparison(
        metric=metric,
        unit="share",
        items=len(base),
        base=errors[0].value,
        base_interval=errors[0].interval,
        tuned=errors[1].value,
        tuned_interval=errors[1].interval,
        difference=difference,
        difference_interval=interval,
        answer=answer_of(interval, higher_is_better=False) if len(base) >= FEWEST_ROWS else "cannot tell",
        source=errors[1].source,
    )


def reliability_bins(pairs: Sequence[tuple[float, bool]]) -> tuple[Bin, ...]:
    """The ten bins of the calibration error: what a reliability plot draws.

    Args:
        pairs: (probability, was it right) of each answer.
    """
    bins = []
    for number in range(BINS):
        inside = [(s, r) for s, r in pairs if min(int(s * BINS), BINS - 1) == number]
        means = [sum(column) / len(inside) for column in zip(*inside, strict=True)] if inside else [None, None]
        bins.append(
            Bin(
                low=number / BINS,
                high=(number + 1) / BINS,
                items=len(inside),
                confidence=means[0],
                accuracy=means[1],
            )
        )
    return tuple(bins)


def _errors(sure: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(..., items) -> (...,)."""
    bins = np.clip((sure * BINS).astype(int), 0, BINS - 1)
    gaps = [np.abs(((bins == b) * (sure - right)).sum(axis=-1)) for b in range(BINS)]
    return np.asarray(np.sum(gaps, axis=0) / sure.shape[-1])
