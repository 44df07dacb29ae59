"""Quantiles of the largest of all pairs' |t|: the studentized range of Tukey, over sqrt(2).

`scipy.stats.studentized_range` has the same numbers, at a tenth of a second each; a comparison asks for hundreds. Here
one table by quadrature for each (arms, degrees of freedom) answers for every error, both ways.
"""

from functools import lru_cache
from math import lgamma, log, sqrt
from typing import Any, TypeAlias

import numpy as np
from scipy.special import log_ndtr, ndtr, roots_legendre

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
SMALLEST = 1e-9  # error; smaller ones are told as this
LARGEST_DF = 1e5  # from here on as if it were endless
WIDEST = 1e7  # |t|


def quantile(arms: int, df: float, error: float | Array) -> Array:
    """The |t| that the largest over all pairs of `arms` exceeds in a share `error` of repeats. For two arms: t."""
    points, errors = _table(arms, float(f"{min(df, LARGEST_DF):.3g}"))
    asked = np.log(np.clip(error, SMALLEST, 1.0))
    return np.asarray(np.exp(np.interp(-asked, -errors, points)))


@lru_cache(maxsize=256)
def _table(arms: int, df: float) -> tuple[Array, Array]:
    """(log |t|, log of the error) at points that lie even in log |t|."""
    points = np.linspace(log(1e-4), log(WIDEST), 1200)
    nodes, weights = roots_legendre(160)
    # ln s, s = sqrt(chi^2 / df): its density falls off within 9 of these on both sides, to the left more slowly
    spread = 1 / sqrt(2 * df)
    low, high = -min(40.0, 9 * spread + 30 / df), min(4.0, 9 * spread)
    x = (low + high) / 2 + (high - low) / 2 * nodes
    density = np.exp(log(2) + df / 2 * log(df / 2) - lgamma(df / 2) + df * x - df / 2 * np.exp(2 * x))
    mass = density * weights * (high - low) / 2
    wide, tail = _range_tail(arms)
    reached = np.interp(points[:, None] + x, wide, tail, left=0.0, right=-np.inf)
    found = np.log(np.maximum((np.exp(reached) * (mass / mass.sum())).sum(-1), 1e-300))
    keep = found > log(SMALLEST) - 1
    return points[keep], np.minimum.accumulate(found[keep])


@lru_cache(maxsize=16)
def _range_tail(arms: int) -> tuple[Array, Array]:
    """(log of w / sqrt(2), log of the chance that the range of `arms` standard normals exceeds w)."""
    wide = np.linspace(log(1e-6), log(40.0), 3000)
    nodes, weights = roots_legendre(200)
    z, mass = 10 * nodes, 10 * weights * np.exp(-50 * nodes**2) / sqrt(2 * np.pi)
    w = sqrt(2) * np.exp(wide)[:, None]
    # 1 - F^k without cancellation: the largest is z, and not all others lie within w below it
    within = np.clip(ndtr(z) - ndtr(z - w), 1e-300, None)
    under = (arms - 1) * log_ndtr(z)
    missed = np.exp(under) * -np.expm1(np.minimum(0.0, (arms - 1) * np.log(within) - under))
    tail = arms * (mass * missed).sum(-1)
    return wide, np.log(np.clip(tail, 1e-300, 1.0))
