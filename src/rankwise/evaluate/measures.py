"""Measurements of one model: a number, its 95 % interval, and how many items it stands on."""

from collections.abc import Sequence

import numpy as np

from rankwise.evaluate.paired import RESAMPLES, resampled, wilson
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
