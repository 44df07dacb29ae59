"""How sure a difference of two arms is, when every seed answers every item: seeds and items are crossed.

The difference of two means moves with three things: which items were asked, which seeds were drawn, and what is left
of an answer when item and seed are known. With two or three seeds a bootstrap over seeds is far too narrow, and the
two or three values of one pair are a poor measure of what seeds do. So the noise of seeds is pooled over all trained
arms (it is taken as alike between them, but never as less than the pair's own), which gives it
`arms x (seeds - 1)` degrees of freedom, and the parts are put together so that each keeps its own quantile:

    half^2 = q_i^2 V_items + max(0, q_s^2 V_seeds - q_i^2 V_rest)

V_items is the delete-one jackknife over items of the difference of arms (for a plain mean: variance / n; for a loss,
a ratio of sums), and holds what is left of an answer once. V_seeds, the variance of the seeds' means, holds it a
second time: that is V_rest, which is taken off. (Two-way random effects, Searle, Casella and McCulloch 1992, chapter
4; the sum of squared half widths is that of Graybill and Wang 1980.) q is t for one pair, and Tukey's studentized
range over sqrt(2) for all pairs of several arms together. What this holds, and what narrower forms did
not, is measured by `tests/compare/test_null.py` and told in docs/log.md.

All functions take leading dimensions, so that thousands of repeats are one call.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from rankwise.compare.studentized import SMALLEST, quantile

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Parts:
    """An estimate and the variances of its parts; arrays of one shape.

    Attributes:
        centre: of the interval: the estimate, or, for shares, drawn to the middle by two made-up items.
        seeds_df: 0: no seeds are drawn, or there is but one of each arm: then the interval is of these models alone.
    """

    estimate: Array
    centre: Array
    items: Array
    items_df: float
    seeds: Array
    seeds_df: int
    rest: Array


@dataclass(frozen=True)
class Pool:
    """What seeds do, over all trained arms: variances of one seed's mean, and of the part of it that is chance of the
    single answers.
    """

    seeds: Array
    rest: Array
    df: int


def weights_of(items: int, weights: Sequence[float] | None) -> Array:
    """Shares of the items in a mean; they add up to 1."""
    given = np.ones(items) if weights is None else np.asarray(weights, dtype=float)
    return np.asarray(given / given.sum())


def pooled(trained: Sequence[Array], share: Array) -> Pool:
    """Over arrays of shape (..., seeds, items), one for each trained arm; the number of seeds may differ."""
    several = [values for values in trained if values.shape[-2] > 1]
    df = sum(values.shape[-2] - 1 for values in several)
    if not several:
        return Pool(np.zeros(()), np.zeros(()), 0)
    seeds = sum((v.shape[-2] - 1) * _seed_variance(v, share) for v in several) / df
    rest = sum((v.shape[-2] - 1) * _rest_variance(v, share) for v in several) / df
    return Pool(np.asarray(seeds), np.asarray(rest), df)


def _seed_variance(values: Array, share: Array) -> Array:
    return np.asarray((values * share).sum(-1).var(-1, ddof=1))


def _rest_variance(values: Array, share: Array) -> Array:
    """Of one seed's mean, as far as it comes from what item and seed leave open."""
    seeds, items = values.shape[-2:]
    by_seed = (values * share).sum(-1)[..., None]
    left = values - values.mean(-2, keepdims=True) - by_seed + by_seed.mean(-2, keepdims=True)
    return np.asarray(((share * left) ** 2).sum((-2, -1)) / (seeds - 1) * items / (items - 1))


def parts_of_difference(
    first: Array, second: Array, share: Array, pool: Pool, trained: tuple[bool, bool], *, bounded: bool
) -> Parts:
    """first - second, both of shape (..., seeds, items), over the same items.

    Args:
        trained: which of the two has seeds at all.
        bounded: values lie between 0 and 1. Two items are made up then, one for either side (as Bonett and Price 2012
            do), so that items which all agree do not give an interval of no width.
    """
    apart = first.mean(-2) - second.mean(-2)
    arms = [values for values, has in zip((first, second), trained, strict=True) if has]
    return _parts(apart, share, pool, arms, made_up=(1.0, -1.0) if bounded else ())


def parts_of_mean(values: Array, share: Array, pool: Pool, trained: bool, *, bounded: bool) -> Parts:
    """The mean of one arm, of shape (..., seeds, items). Shares get two made-up hits and two misses (Agresti and Coull
    1998).
    """
    return _parts(
        values.mean(-2), share, pool, [values] if trained else [], made_up=(1.0, 1.0, 0.0, 0.0) if bounded else ()
    )


def _parts(by_item: Array, share: Array, pool: Pool, arms: Sequence[Array], made_up: tuple[float, ...]) -> Parts:
    estimate = (by_item * share).sum(-1)
    if made_up:
        beside = np.broadcast_to(np.asarray(made_up), (*by_item.shape[:-1], len(made_up)))
        by_item, items = np.concatenate([by_item, beside], -1), len(share)
        share = np.concatenate([share * items, np.ones(len(made_up))]) / (items + len(made_up))
    centre = (by_item * share).sum(-1)
    zero = np.zeros_like(centre)
    seeds = _seeds(arms, share[: arms[0].shape[-1]] / share[: arms[0].shape[-1]].sum(), pool) if arms else zero
    rest = pool.rest * sum(1 / values.shape[-2] for values in arms) if pool.df else zero
    return Parts(
        estimate=estimate,
        centre=centre,
        items=_jackknife(by_item, share, centre),
        items_df=float(1 / (share**2).sum() - 1),
        seeds=seeds + zero,
        seeds_df=pool.df if arms else 0,
        rest=rest + zero,
    )


def _seeds(arms: Sequence[Array], share: Array, pool: Pool) -> Array:
    """The larger of what all arms and what these arms say."""
    alike, own = np.zeros(()), np.zeros(())
    for values in arms:
        count = values.shape[-2]
        alike = alike + pool.seeds / count
        own = own + (_seed_variance(values, share) if count > 1 else pool.seeds) / count
    return np.asarray(np.maximum(alike, own))


def _jackknife(by_item: Array, share: Array, mean: Array) -> Array:
    """Variance of a weighted mean when items are drawn again, each left out once."""
    moved = share * (by_item - mean[..., None]) / (1 - share)
    moved = moved - moved.mean(-1, keepdims=True)
    items = by_item.shape[-1]
    return np.asarray((moved**2).sum(-1) * (items - 1) / items)


def half_width(parts: Parts, error: float | Array, arms: int = 2) -> Array:
    """Half the interval that misses in a share `error` of repeats; of several arms: that any of their pairs misses."""
    of_items = quantile(arms, parts.items_df, error)
    squared = of_items**2 * parts.items
    if parts.seeds_df:
        of_seeds = quantile(arms, parts.seeds_df, error)
        squared = squared + np.maximum(0.0, of_seeds**2 * parts.seeds - of_items**2 * parts.rest)
    return np.asarray(np.sqrt(squared))


def p_value(parts: Parts, arms: int = 2) -> Array:
    """The error at which 0 is just at the end of the interval: two-sided, for all pairs of `arms` together."""
    low = np.full(np.shape(parts.centre), np.log(SMALLEST))
    high = np.zeros_like(low)
    for _ in range(40):
        middle = (low + high) / 2
        inside = half_width(parts, np.exp(middle), arms) >= np.abs(parts.centre)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return np.asarray(np.where(parts.centre == 0, 1.0, np.exp(low)))
