"""Is it as sure as it is right? Expected calibration error of answers that come with a probability."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import bootstrap

from rankwise.evaluate.paired import LEVEL, RESAMPLES
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


def _errors(sure: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(..., items) -> (...,)."""
    bins = np.clip((sure * BINS).astype(int), 0, BINS - 1)
    gaps = [np.abs(((bins == b) * (sure - right)).sum(axis=-1)) for b in range(BINS)]
    return np.asarray(np.sum(gaps, axis=0) / sure.shape[-1])
