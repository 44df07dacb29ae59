"""One method under several names must not be told apart from itself, and what is promised before a run must be told.

Of 1,000 comparisons at a family-wise error of 5 %, 950 are expected to say "cannot tell", with a standard deviation of
6.9: 929 is three of them below. So is the range around 80 % of 1,000 (12.6 each)."""

from itertools import product
from math import sqrt

import numpy as np
import pytest

from rankwise.compare.detect import Design, detectable, widths
from rankwise.compare.stats import difference, told
from tests.compare.simulated import cannot_tell, same_method, table

LEAST = 0.929
NEAR = 3 * sqrt(0.8 * 0.2 / 1000)
NOISE = [(0.0, 1.0), (0.2, 0.1), (0.5, 1.0), (1.0, 0.1)]  # of the run, of the answer


@pytest.mark.parametrize("unit", ["share", "nats per token"])
@pytest.mark.parametrize(("arms", "seeds"), [(2, 2), (2, 3), (4, 2), (4, 3)])
def test_same_method_is_not_told_apart(unit: str, arms: int, seeds: int) -> None:
    draws = np.random.default_rng(8)
    for items, (by_seed, by_answer) in product((40, 200), NOISE):
        found = cannot_tell(same_method(draws, unit, arms, seeds, items, by_seed, by_answer))
        assert found >= LEAST, (items, by_seed, by_answer, found)


def shares(draws: np.random.Generator, design: Design, apart: float, steady: bool, repeats: int = 1000) -> np.ndarray:
    """Arms at one half, the first by `apart` above the second: answers drawn for each run, or once for all seeds."""
    level = np.full(design.arms, 0.5)
    level[:2] += np.array([apart, -apart]) / 2
    shape = (repeats, design.arms, 1 if steady else design.seeds, design.items)
    drawn = (draws.random(shape) < level[:, None, None]).astype(float)
    return np.repeat(drawn, design.seeds, axis=2) if steady else drawn


@pytest.mark.parametrize(
    "design", [Design(48, 2, 2, 2), Design(200, 2, 4, 4), Design(96, 3, 4, 4), Design(40, 3, 2, 2)]
)
def test_detectable_share_is_told_in_80_percent(design: Design) -> None:
    """In the worse of the two worst cases as said, in the other at least as often."""
    promised = detectable("facts", "share", design)
    assert promised is not None
    draws = np.random.default_rng(8)
    power = []
    for steady in (False, True):
        of = table(shares(draws, design, promised.difference, steady), "share")
        power.append(told(of, difference(of, "arm 0", "arm 1")).mean())
    assert abs(min(power) - 0.8) < NEAR, power


@pytest.mark.parametrize("design", [Design(60, 2, 2, 2), Design(120, 3, 3, 3)])
def test_detectable_loss_is_told_in_80_percent(design: Design) -> None:
    """Rows of two arms differ by as much as rows of the base do."""
    promised = detectable("loss", "nats per token", design, 0.4, "measured")
    assert promised is not None
    draws = np.random.default_rng(8)
    shape = (1000, design.arms, design.seeds, design.items)
    power = []
    for steady in (False, True):
        noise = draws.normal(0, 0.4 / sqrt(2), (*shape[:2], 1 if steady else shape[2], shape[3]))
        values = np.broadcast_to(noise, shape).copy()
        values[:, 0] -= promised.difference
        of = table(values, "nats per token")
        power.append(told(of, difference(of, "arm 0", "arm 1")).mean())
    assert abs(min(power) - 0.8) < NEAR, power


def test_more_of_anything_tells_smaller_differences() -> None:
    base = Design(48, 2, 4, 2)
    for more in (Design(96, 2, 4, 2), Design(48, 3, 4, 2), Design(48, 2, 3, 2), Design(48, 2, 4, 3)):
        assert widths(more) < widths(base)


def test_nothing_is_promised_without_a_spread_or_items() -> None:
    assert detectable("loss", "nats per token", Design(48, 2, 2, 2)) is None
    assert detectable("facts", "share", Design(5, 2, 2, 2)) is None
    assert detectable("facts", "share", Design(48, 2, 1, 1)) is None
