"""The prior of what a run forgets: its anchors, and where it cuts the learning rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.decide.forgetting import cut_of, expected_rise
from rankwise.decide.rulebook import threshold
from rankwise.records import Facts
from tests import builders

RULE = "forgetting_budget"
LARGE = builders.facts(builders.llama3_8b())
SMALL = builders.facts(builders.smollm2())
shares = st.floats(0, 0.99)
sizes = st.integers(10**6, 10**12)


def sized(params: int) -> Facts:
    return builders.facts(builders.llama3_8b().model_copy(update={"total_params": params}))


def test_the_anchors_are_the_published_ones() -> None:
    assert expected_rise(LARGE, True, 0.0) == pytest.approx(0.030)
    assert expected_rise(LARGE, False, 0.0) == pytest.approx(0.050)
    assert expected_rise(LARGE, False, 0.2) == pytest.approx(0.050 * threshold(RULE, "replay_keeps"))
    assert expected_rise(SMALL, False, 0.0) == pytest.approx(1.44)


@pytest.mark.parametrize(("full", "cut", "measured"), [(True, 3.0, 0.067), (False, 2.0, 0.841), (False, 5.0, 0.181)])
def test_at_other_rates_it_says_about_what_x3_measured(full: bool, cut: float, measured: float) -> None:
    """X3 at 135M: full at 3e-5, LoRA at 5e-4 and 2e-4, beside 1e-4 and 1e-3 of the anchors."""
    assert measured / 1.7 < expected_rise(SMALL, full, 0.0, cut) < measured * 1.7


@given(st.booleans(), shares, shares, sizes)
def test_more_replay_never_forgets_more_and_never_gains(full: bool, share: float, more: float, params: int) -> None:
    low, high = sorted((share, more))
    assert expected_rise(sized(params), full, low) >= expected_rise(sized(params), full, high) > 0


@given(st.booleans(), shares, sizes, sizes)
def test_a_larger_model_never_forgets_more(full: bool, share: float, params: int, more: int) -> None:
    low, high = sorted((params, more))
    assert expected_rise(sized(low), full, share) >= expected_rise(sized(high), full, share)


@given(st.booleans(), shares, st.floats(1e-5, 1), st.floats(1e-5, 1), sizes)
def test_a_wider_budget_never_cuts_more(full: bool, share: float, nats: float, more: float, params: int) -> None:
    low, high = (builders.job(forgetting={"budget_nats": n}) for n in sorted((nats, more)))
    cuts = [cut_of(job, sized(params), full, share) for job in (low, high)]
    assert cuts[0] >= cuts[1] and set(cuts) <= {1.0, 3.0, 9.0}


def test_the_rate_is_cut_where_the_rise_is_red() -> None:
    edge = 0.050 / threshold(RULE, "red")
    assert cut_of(builders.job(forgetting={"budget_nats": edge * 1.001}), LARGE, False, 0.0) == 1.0
    assert cut_of(builders.job(forgetting={"budget_nats": edge * 0.999}), LARGE, False, 0.0) == 3.0


@pytest.mark.parametrize(("nats", "cut"), [(0.5, 1.0), (0.1, 3.0), (0.03, 9.0), (0.001, 9.0)])
def test_a_small_model_is_cut_more_and_never_below_a_ninth(nats: float, cut: float) -> None:
    assert cut_of(builders.job(forgetting={"budget_nats": nats}), SMALL, False, 0.05) == cut
    assert cut_of(builders.job(goal="knowledge", forgetting={"budget_nats": nats}), SMALL, False, 0.05) == 1.0
