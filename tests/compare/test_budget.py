"""Budgets are dealt so that training is worth the same to every arm, and nothing is spent twice."""

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rankwise.compare.budget import SWEEP_SHARE, Ask, TooSmall, deal, learning_rates, least, span

arms = st.lists(st.tuples(st.one_of(st.none(), st.floats(0.1, 50.0)), st.floats(0.0, 500.0)), min_size=1, max_size=5)
counts = st.integers(1, 5)


def asked(given: list[tuple[float | None, float]], scale: float = 1.0) -> list[Ask]:
    return [Ask(f"arm {n}", step and step * scale, beside * scale) for n, (step, beside) in enumerate(given)]


@given(arms, counts, counts, st.floats(1.0, 300.0), st.integers(1, 3), st.sampled_from([1.0, 1e11]))
def test_shares_are_equal_and_within_the_budget(
    given: list[tuple[float | None, float]], seeds: int, rates: int, more: float, devices: int, scale: float
) -> None:
    asks = asked(given, scale)
    trained = [ask for ask in asks if ask.step is not None]
    assume(trained)
    budget = more * least(asks, seeds=seeds, rates=rates, devices=devices)
    shares = deal(budget, asks, seeds=seeds, rates=rates, devices=devices)
    swept = rates if rates > 1 else 0
    worth = [shares[ask.name].total * (ask.step or 0.0) for ask in trained]
    dearest = max(ask.step or 0.0 for ask in trained)
    assert max(worth) - min(worth) <= dearest * (1 + 1e-6)
    spent = [ask.beside + shares[ask.name].total * (ask.step or 0.0) for ask in asks]
    assert span(spent, devices) <= budget * (1 + 1e-6)
    for ask in asks:
        share = shares[ask.name]
        assert share.total == seeds * share.steps + share.odd_steps + swept * share.sweep_steps or ask.step is None
        if ask.step is None:
            assert (share.steps, share.total) == (0, 0)
        else:
            assert share.steps >= 1 and 0 <= share.odd_steps < seeds
            assert (share.sweep_steps >= 1) == (swept > 0)
            assert share.sweep_steps <= max(1, SWEEP_SHARE * (share.steps + 1))


@given(arms, counts, counts, st.integers(1, 3))
def test_the_least_budget_works_and_less_does_not(
    given: list[tuple[float | None, float]], seeds: int, rates: int, devices: int
) -> None:
    asks = asked(given)
    assume(any(ask.step is not None for ask in asks))
    needed = least(asks, seeds=seeds, rates=rates, devices=devices)
    deal(needed, asks, seeds=seeds, rates=rates, devices=devices)
    with pytest.raises(TooSmall) as refused:
        deal(0.99 * needed, asks, seeds=seeds, rates=rates, devices=devices)
    assert refused.value.needed == needed


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=8), st.integers(1, 4))
def test_arms_side_by_side_end_no_later_than_one_by_one(durations: list[float], devices: int) -> None:
    ends = span(durations, devices)
    assert ends <= sum(durations) + 1e-9
    assert ends >= max(max(durations), sum(durations) / devices) - 1e-9


@given(st.floats(1e-6, 1.0), st.integers(1, 7))
def test_rates_are_three_apart_around_the_planned_one(planned: float, count: int) -> None:
    rates = learning_rates(planned, count)
    assert len(rates) == count
    middle = (rates[(count - 1) // 2] * rates[count // 2]) ** 0.5
    assert middle == pytest.approx(planned, rel=0.01)
    assert all(high / low == pytest.approx(3.0, rel=0.02) for low, high in pairwise(rates))


def test_three_rates_of_a_plan() -> None:
    assert learning_rates(1e-3, 3) == (3.33e-4, 1e-3, 3e-3) and learning_rates(1e-3, 1) == (1e-3,)


def test_a_comparison_without_training_costs_its_answers() -> None:
    shares = deal(30.0, [Ask("base", None, 10.0), Ask("fewshot", None, 20.0)], seeds=3, rates=3)
    assert all(share.total == 0 for share in shares.values())
    with pytest.raises(TooSmall):
        deal(29.0, [Ask("base", None, 10.0), Ask("fewshot", None, 20.0)], seeds=3, rates=3)
