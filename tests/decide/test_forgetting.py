"""The prior of what a run forgets: its anchors, and where it cuts the learning rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.decide.forgetting import cut_of, expected_rise
from rankwise.decide.rulebook import threshold
from tests import builders

shares = st.floats(0, 0.99)


def test_the_anchors_are_the_published_ones() -> None:
    assert expected_rise(True, 0.0) == 0.030 and expected_rise(False, 0.0) == 0.050
    assert expected_rise(False, 0.2) == pytest.approx(0.050 * 0.09)  # X4: a fifth of the rows left 9 %


@given(st.booleans(), shares, shares)
def test_more_replay_never_forgets_more_and_never_gains(weights: bool, share: float, more: float) -> None:
    low, high = sorted((share, more))
    assert expected_rise(weights, low) >= expected_rise(weights, high) > 0


@given(st.booleans(), shares, st.floats(1e-5, 1), st.floats(1e-5, 1))
def test_a_wider_budget_never_cuts_more(weights: bool, share: float, nats: float, more: float) -> None:
    low, high = (builders.job(forgetting={"budget_nats": n}) for n in sorted((nats, more)))
    assert cut_of(low, weights, share) >= cut_of(high, weights, share)


def test_the_rate_is_cut_where_the_rise_is_red() -> None:
    edge = 0.050 / threshold("forgetting_budget", "red")
    assert cut_of(builders.job(forgetting={"budget_nats": edge * 1.001}), False, 0.0) == 1.0
    assert cut_of(builders.job(forgetting={"budget_nats": edge * 0.999}), False, 0.0) == 3.0
