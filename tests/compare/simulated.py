"""Comparisons drawn at random: arms of one method under several names, or two arms a known difference apart."""

from collections.abc import Sequence

import numpy as np

from rankwise.compare.crossed import weights_of
from rankwise.compare.stats import Table, difference, told
from rankwise.records import Scores


def table(
    values: np.ndarray, unit: str, weights: Sequence[float] | None = None, untrained: Sequence[str] = ()
) -> Table:
    """Of many comparisons: (repeats, arms, seeds, items). An untrained arm answers as its first seed does."""
    items = values.shape[-1]
    share = unit == "share"
    names = [*untrained, *(f"arm {k}" for k in range(values.shape[1] - len(untrained)))]
    by_arm = {name: values[:, k] for k, name in enumerate(names)}
    return Table(
        about=Scores(
            metric="metric",
            unit=unit,
            side="facts" if share else "style",
            higher_is_better=share,
            values=(0.0,) * items,
            weights=None if weights is None else tuple(weights),
        ),
        values={name: v[:, :1] if name in untrained else v for name, v in by_arm.items()},
        share=weights_of(items, weights),
        trained=frozenset(names[len(untrained) :]),
    )


def cannot_tell(of: Table) -> float:
    """Share of repeats in which no pair at all is told apart."""
    names = list(of.values)
    found = [told(of, difference(of, a, b)) for k, a in enumerate(names) for b in names[:k]]
    return float(1 - np.any(found, axis=0).mean())


def same_method(
    draws: np.random.Generator, unit: str, arms: int, seeds: int, items: int, by_seed: float, by_answer: float
) -> Table:
    """1,000 comparisons of one method with itself under several names.

    Items are easy or hard for all arms alike. Each run has an effect of its own on all answers, and each answer some
    chance.

    Args:
        by_seed, by_answer: standard deviations of the run's effect and of the answer's chance, beside 1.5 of items.
    """
    shape = (1000, arms, seeds, items)
    item = draws.normal(0.0, 1.5, (1000, 1, 1, items))
    run = draws.normal(0.0, by_seed, (1000, arms, seeds, 1)) if by_seed else 0.0
    if unit == "share":
        return table((item + run + by_answer * draws.logistic(size=shape) > 0).astype(float), unit)
    losses = np.exp(0.5 * item) + 0.3 * run + 0.3 * by_answer * draws.standard_t(5, shape)
    return table(losses, unit, np.round(np.exp(draws.normal(2.5, 0.7, items))) + 1)
