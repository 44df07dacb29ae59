"""The reliability plot: a point for each bin that holds answers, with the interval of its share."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.records import Bin, Reliability
from rankwise.report.reliability_chart import reliability_figures, wilson
from tests.report.conftest import build_evaluation
from tests.report.test_forgetting_charts import colours


def bins(*rows: tuple[float, int, float | None, float | None]) -> tuple[Bin, ...]:
    return tuple(Bin(low=low, high=low + 0.1, items=n, confidence=sure, accuracy=right) for low, n, sure, right in rows)


BASE = bins((0.0, 0, None, None), (0.3, 10, 0.35, 0.4), (0.6, 20, 0.65, 0.6))
TUNED = bins((0.0, 0, None, None), (0.3, 5, 0.33, 0.2), (0.9, 25, 0.95, 0.48))


def test_each_bin_with_answers_is_a_point() -> None:
    measured = build_evaluation(reliability=(Reliability(kind="answers", base=BASE, tuned=TUNED),))
    figures = reliability_figures(measured)
    assert list(figures) == ["reliability-answers-data"]
    base, tuned = figures["reliability-answers-data"]["data"]
    assert (base["x"], base["y"]) == ([35.0, 65.0], [40.0, 60.0])
    assert (tuned["x"], tuned["y"]) == ([33.0, 95.0], [20.0, 48.0])
    assert tuned["customdata"][1] == "tuned: 25 answers, sure by 95 %, 48 % right"
    found = colours(figures)
    assert {c for c in found if not c.startswith("var(--")} == set() and json.dumps(figures, allow_nan=False)


def test_what_was_not_measured_is_no_picture() -> None:
    assert reliability_figures(None) == reliability_figures(build_evaluation(reliability=())) == {}
    empty = Reliability(kind="choices", base=bins((0.0, 0, None, None)), tuned=bins((0.0, 0, None, None)))
    assert reliability_figures(build_evaluation(reliability=(empty,))) == {}


def test_wilsons_interval_as_published() -> None:
    assert wilson(0.1, 10) == pytest.approx((0.0179, 0.4042), abs=1e-4)  # R: prop.test(1, 10, correct = FALSE)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


@given(st.integers(1, 1000), st.floats(0, 1))
def test_the_interval_holds_the_share_and_stays_a_share(items: int, share: float) -> None:
    right = round(share * items) / items
    low, high = wilson(right, items)
    assert 0 <= low <= right <= high <= 1
    assert high - low > (wilson(right, 10 * items)[1] - wilson(right, 10 * items)[0])
