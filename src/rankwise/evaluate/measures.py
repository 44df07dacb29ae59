"""Measurements of one model: a number, its 95 % interval, and how many items it stands on."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from rankwise.evaluate.paired import FEWEST_ROWS, LEVEL, RESAMPLES, resampled, wilson
from rankwise.records.diagnosis import Measurement


def share_of(right: Sequence[bool], source: str) -> Measurement:
    """The share of items that are right, with Wilson's interval."""
    return Measurement(
        value=sum(right) / len(right),
        interval=wilson(right),
        unit="share",
        items=len(right),
        source=f"{source}; Wilson interval, 95 %",
    )


def mean_of(values: Sequence[float], unit: str, source: str) -> Measurement:
    """The mean over items, with a bootstrap over items."""
    found = _ratio(np.array(values, dtype=float), np.ones(len(values)), unit, len(values), source)
    assert found is not None
    return found


def ratio_of(top: Sequence[float], bottom: Sequence[float], source: str) -> Measurement | None:
    """sum(top) / sum(bottom) over items, with a bootstrap over items; None where the bottom is 0."""
    return _ratio(np.array(top, dtype=float), np.array(bottom, dtype=float), "ratio", len(top), source)


def correlation_of(one: Sequence[float], other: Sequence[float], source: str) -> Measurement | None:
    """Pearson's r, -1 to 1, with the interval of Fisher's z; None where a side never changes, or with few items."""
    if len(one) < FEWEST_ROWS or len(set(one)) < 2 or len(set(other)) < 2:
        return None
    r = float(np.clip(np.corrcoef(np.array(one, dtype=float), np.array(other, dtype=float))[0, 1], -1, 1))
    centre, half = np.arctanh(np.clip(r, -0.999999, 0.999999)), norm.ppf(0.5 + LEVEL / 2) / np.sqrt(len(one) - 3)
    return Measurement(
        value=r,
        interval=(min(float(np.tanh(centre - half)), r), max(float(np.tanh(centre + half)), r)),
        unit="correlation",
        items=len(one),
        source=f"{source}; Fisher's z interval, 95 %",
    )


def mean_loss(sums: np.ndarray, tokens: np.ndarray, source: str) -> Measurement | None:
    """Nats per token over rows, with a bootstrap over rows; None without a token.

    Args:
        sums, tokens: (rows,) summed nats and number of tokens of each row.
    """
    return _ratio(sums, tokens, "nats per token", int(tokens.sum()), source)


def share_of_loss(part: np.ndarray, whole: np.ndarray, source: str) -> Measurement | None:
    """sum(part) / sum(whole) over rows, with a bootstrap over rows; None where the whole is 0.

    Args:
        part, whole: (rows,) nats of each row.
    """
    return _ratio(part, whole, "share", int((whole > 0).sum()), source)


def _ratio(top: np.ndarray, bottom: np.ndarray, unit: str, items: int, source: str) -> Measurement | None:
    kept = bottom > 0  # a row without such tokens says nothing, and a draw of nothing else has no ratio
    if not kept.any():
        return None
    top, bottom = top[kept].astype(float), bottom[kept].astype(float)
    return Measurement(
        value=float(top.sum() / bottom.sum()),
        interval=resampled(top, bottom),
        unit=unit,
        items=items,
        source=f"{source}; expanded percentile bootstrap over {len(top)} rows, {RESAMPLES} resamples, 95 %",
    )
