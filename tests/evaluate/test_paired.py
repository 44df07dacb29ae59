"""Intervals mean what they say: they cover as often as they claim, and where nothing differs the answer is `cannot
tell`.
"""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from rankwise.evaluate.calibration import compare_calibration, reliability_bins
from rankwise.evaluate.measures import correlation_of, mean_of, ratio_of
from rankwise.evaluate.paired import compare_losses, compare_scores, compare_shares

Z = float(norm.ppf(0.975))


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson (1927), written out."""
    share, z = successes / n, Z
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return middle - half, middle + half


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
@settings(max_examples=200, deadline=None)
def test_shares(pairs: list[tuple[bool, bool]]) -> None:
    base, tuned = [a for a, _ in pairs], [b for _, b in pairs]
    found = compare_shares("format", base, tuned, "test")
    n = len(pairs)
    assert found.base == sum(base) / n and found.tuned == sum(tuned) / n and found.items == n
    assert found.base_interval == pytest.approx(wilson(sum(base), n), abs=1e-9)
    assert found.tuned_interval == pytest.approx(wilson(sum(tuned), n), abs=1e-9)
    low, high = found.difference_interval
    assert -1 <= low <= high <= 1
    assert found.answer == ("better" if low > 0 else "worse" if high < 0 else "cannot tell")
    mirrored = compare_shares("format", tuned, base, "test")
    assert mirrored.difference_interval == pytest.approx((-high, -low))


def test_the_difference_is_that_of_bonett_and_price() -> None:
    """Bonett and Price 2012, adjusted Wald for paired proportions, computed by hand: f12 = 3, f21 = 12, n = 50."""
    base = [True] * 20 + [False] * 15 + [True] * 3 + [False] * 12
    tuned = [True] * 20 + [False] * 15 + [False] * 3 + [True] * 12
    up, down = 13 / 52, 4 / 52
    half = Z * sqrt((up + down - (up - down) ** 2) / 52)
    found = compare_shares("format", base, tuned, "test")
    assert found.difference == pytest.approx(9 / 50)
    assert found.difference_interval == pytest.approx((up - down - half, up - down + half))
    assert found.answer == "better"


@pytest.mark.parametrize("n", [1, 5, 40])
def test_agreement_on_every_item_keeps_a_width(n: int) -> None:
    found = compare_shares("format", [True] * n, [True] * n, "test")
    assert found.difference == 0 and found.difference_interval[1] - found.difference_interval[0] > 0.02
    assert found.answer == "cannot tell"


def draws(rng: np.random.Generator, n: int, cells: tuple[float, float, float, float]) -> tuple[list[bool], list[bool]]:
    """n pairs; cells: probability of (both, only tuned, only base, neither)."""
    kind = rng.choice(4, size=n, p=cells)
    return [bool(k in (0, 2)) for k in kind], [bool(k in (0, 1)) for k in kind]


@pytest.mark.parametrize(
    ("n", "cells"),
    [
        (64, (0.3, 0.3, 0.1, 0.3)),
        (30, (0.5, 0.2, 0.1, 0.2)),
        (64, (0.05, 0.85, 0.02, 0.08)),
        (20, (0.4, 0.1, 0.1, 0.4)),
    ],
)
def test_the_paired_interval_covers_the_truth(n: int, cells: tuple[float, float, float, float]) -> None:
    rng, truth, covered = np.random.default_rng(0), cells[1] - cells[2], 0
    for _ in range(2000):
        low, high = compare_shares("format", *draws(rng, n, cells), "test").difference_interval
        covered += low <= truth <= high
    assert 0.935 <= covered / 2000 <= 0.985


@pytest.mark.parametrize("n", [16, 64])
def test_no_difference_in_shares_is_said(n: int) -> None:
    rng = np.random.default_rng(1)
    told = [compare_shares("format", *draws(rng, n, (0.4, 0.1, 0.1, 0.4)), "test").answer for _ in range(2000)]
    assert told.count("cannot tell") / 2000 >= 0.93


def losses(rng: np.random.Generator, n: int, shift: float) -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
    """Rows of different lengths and difficulties, the same for both models; the tuned one is worse by `shift` a
    token.
    """
    tokens = rng.integers(3, 60, n)
    hard = rng.gamma(4.0, 0.5, n)
    base = [(float(t * (h + rng.normal(0, 0.1))), int(t)) for t, h in zip(tokens, hard, strict=True)]
    tuned = [(float(t * (h + shift + rng.normal(0, 0.1))), int(t)) for t, h in zip(tokens, hard, strict=True)]
    return base, tuned


def test_losses_are_per_token_and_paired() -> None:
    base, tuned = [(10.0, 5), (2.0, 10)], [(5.0, 5), (1.0, 10)]
    found = compare_losses("heldout_loss", base, tuned, "test")
    assert (found.base, found.tuned, found.difference) == pytest.approx((0.8, 0.4, -0.4))
    assert found.unit == "nats per token" and found.items == 2


def test_a_clear_fall_is_better_and_a_clear_rise_is_worse() -> None:
    rng = np.random.default_rng(0)
    assert compare_losses("heldout_loss", *losses(rng, 40, -0.2), "test").answer == "better"
    assert compare_losses("general_loss", *losses(rng, 40, 0.2), "test").answer == "worse"


def test_pairing_narrows_the_interval() -> None:
    found = compare_losses("heldout_loss", *losses(np.random.default_rng(0), 40, -0.2), "test")
    alone = found.base_interval[1] - found.base_interval[0]
    assert found.difference_interval[1] - found.difference_interval[0] < 0.3 * alone


def test_no_difference_in_losses_is_said() -> None:
    rng = np.random.default_rng(2)
    told = [compare_losses("heldout_loss", *losses(rng, 48, 0.0), "test").answer for _ in range(300)]
    assert told.count("cannot tell") / 300 >= 0.91  # 0.93 less the noise of 300 draws


@pytest.mark.prove
def test_no_difference_in_losses_is_said_in_bulk() -> None:
    rng = np.random.default_rng(3)
    told = [compare_losses("heldout_loss", *losses(rng, 64, 0.0), "test").answer for _ in range(2000)]
    assert told.count("cannot tell") / 2000 >= 0.93


def test_the_same_rows_give_the_same_interval_twice() -> None:
    pair = losses(np.random.default_rng(0), 20, 0.1)
    assert compare_losses("heldout_loss", *pair, "test") == compare_losses("heldout_loss", *pair, "test")


def test_one_row_alone_proves_nothing() -> None:
    """An interval from one row has no width; it must not be taken for certainty."""
    assert compare_losses("heldout_loss", [(10.0, 5)], [(5.0, 5)], "test").answer == "cannot tell"


@pytest.mark.parametrize("n", [2, 4, 6, 8, 12])
def test_few_rows_are_not_taken_for_more_than_they_are(n: int) -> None:
    rng = np.random.default_rng(4)
    told = [compare_losses("heldout_loss", *losses(rng, n, 0.0), "test").answer for _ in range(300)]
    assert told.count("cannot tell") / 300 >= 0.91


def test_less_may_be_better() -> None:
    more, less = [True] * 15 + [False] * 5, [False] * 20
    assert compare_shares("refusals", more, less, "test", higher_is_better=False).answer == "better"
    assert compare_shares("refusals", less, more, "test", higher_is_better=False).answer == "worse"


def test_scores_of_zero_and_one_are_compared_as_shares() -> None:
    base, tuned = [False] * 15 + [True] * 5, [True] * 12 + [False] * 8
    scores = compare_scores("facts_f1", [float(b) for b in base], [float(t) for t in tuned], "test")
    assert scores == compare_shares("facts_f1", base, tuned, "test")


def test_scores_between_are_means_with_a_paired_bootstrap() -> None:
    draw = np.random.default_rng(3)
    base = draw.random(40) * 0.5
    tuned = np.clip(base + draw.normal(0.2, 0.05, 40), 0, 1)
    found = compare_scores("facts_f1", list(base), list(tuned), "test")
    assert found.base == pytest.approx(base.mean()) and found.tuned == pytest.approx(tuned.mean())
    low, high = found.difference_interval
    assert low < found.difference < high and high - low < 0.1 and found.answer == "better"
    wide = found.base_interval[1] - found.base_interval[0]
    assert wide > high - low, "pairing must take out what both share"
    assert compare_scores("x", [0.5] * 5, [0.9] * 5, "few", unit="score").answer == "cannot tell"


def test_the_intervals_of_scores_cover_as_often_as_they_claim() -> None:
    draw = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        base = draw.random(30)
        found = compare_scores("x", list(base), list(base + draw.normal(0.1, 0.3, 30)), "test", unit="score")
        hits += found.difference_interval[0] <= 0.1 <= found.difference_interval[1]
    assert 180 <= hits <= 199


def test_calibration_errors_are_compared_on_the_same_questions() -> None:
    draw = np.random.default_rng(1)
    sure = draw.random(300)
    right = draw.random(300) < sure
    fair, proud = ([(float(s), bool(r)) for s, r in zip(said, right, strict=True)] for said in (sure, sure**0.2))
    found = compare_calibration("calibration_error", fair, proud, "test")
    assert found.base < 0.12 < 0.2 < found.tuned and found.answer == "worse"
    assert found.difference_interval[0] > 0
    same = compare_calibration("calibration_error", fair, fair, "test")
    assert same.difference == 0 and same.answer == "cannot tell"


def test_bins_hold_every_answer_once() -> None:
    bins = reliability_bins([(0.0, False), (0.05, True), (0.95, True), (1.0, False)])
    assert [b.items for b in bins] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert (bins[0].confidence, bins[0].accuracy) == (pytest.approx(0.025), 0.5)
    assert bins[-1].confidence == pytest.approx(0.975) and bins[1].confidence is None is bins[1].accuracy
    assert [(b.low, b.high) for b in bins][::9] == [(0.0, 0.1), (0.9, 1.0)]


def test_means_ratios_and_correlations() -> None:
    assert mean_of([2.0, 4.0, 6.0], "tokens", "test").value == 4
    ratio = ratio_of([10.0, 30.0, 20.0], [10.0, 10.0, 20.0], "test")
    assert ratio is not None and ratio.value == 1.5 and ratio.interval[0] < 1.5 < ratio.interval[1]
    found = correlation_of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0], "test")
    assert found is not None and found.value == pytest.approx(0.8783, abs=1e-4)
    half = Z / sqrt(3)  # Fisher's z, written out
    assert found.interval[0] == pytest.approx(np.tanh(np.arctanh(0.87831) - half), abs=1e-3)
    assert correlation_of([1.0] * 8, [0.0, 1.0] * 4, "test") is None
    assert correlation_of([1.0, 2.0, 3.0], [0.0, 1.0, 1.0], "too few") is None
