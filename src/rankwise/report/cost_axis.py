"""An axis for what things cost: linear, or logarithmic with a place for 0, which costs of untrained models are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LOG_FROM = 6.0  # largest over smallest value, from which on an axis is logarithmic
ZERO_GAP = 0.6  # decades left of the smallest value at which 0 stands on such an axis
MULTIPLES = ((1, 2, 5), (1, 3), (1,))  # of a power of ten: the first choice that gives few enough
MOST_TICKS = 6


@dataclass(frozen=True)
class Across:
    """An axis whose positions are values, or their logarithms with a place for 0 beside them.

    Attributes:
        zero: where 0 stands on a logarithmic axis; None: the axis is linear, or holds no 0.
    """

    logarithmic: bool
    zero: float | None
    axis: dict[str, Any]

    def at(self, value: float) -> float:
        if not self.logarithmic:
            return short(value)
        return short(math.log10(value)) if value > 0 else (self.zero or 0.0)


def cost_axis(values: Sequence[float]) -> Across:
    positive = [v for v in values if v > 0]
    low, high = min(positive, default=1.0), max(positive, default=1.0)
    if high / low <= LOG_FROM:
        least = min(values)
        pad = 0.12 * (max(values) - least) or 0.12 * high
        start = -pad if least == 0 else max(0.0, least - pad)
        return Across(False, None, {"range": [short(start), short(max(values) + pad)], "nticks": 6})
    zero = short(math.log10(low) - ZERO_GAP) if min(values) == 0 else None
    ends = [(zero if zero is not None else math.log10(low)) - 0.15, math.log10(high) + 0.2]
    shown = ticks(low / 1.5, high * 1.5)
    axis: dict[str, Any] = {"range": [short(e) for e in ends], "tickmode": "array"}
    axis["tickvals"] = ([zero] if zero is not None else []) + [short(math.log10(t)) for t in shown]
    axis["ticktext"] = (["0"] if zero is not None else []) + [f"{t:,.0f}" if t >= 1 else f"{t:g}" for t in shown]
    return Across(True, zero, axis)


def ticks(low: float, high: float, most: int = MOST_TICKS) -> list[float]:
    """Round numbers from low to high, at most so many of them."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for multiples in MULTIPLES:
        found = [m * 10.0**d for d in decades for m in multiples if low <= m * 10.0**d <= high]
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]


def short(value: float) -> float:
    """Five digits: more cannot be seen."""
    return float(f"{value:.5g}")
