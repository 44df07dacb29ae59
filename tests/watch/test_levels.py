"""Levels: what is acted on must be certain, and what is worse is never called better."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.records import Level
from rankwise.watch.levels import (
    ORDER,
    Limits,
    choice_limits,
    level,
    limits_of,
    nats_limits,
    slice_of,
    worst,
)

C10 = nats_limits(0.03)
nats = st.floats(-2, 2)
widths = st.floats(0, 1)
budgets = st.floats(1e-4, 1)


def of_nats(difference: float, below: float, above: float, limits: Limits = C10) -> Level:
    return level("general_loss", difference, (difference - below, difference + above), limits)


@pytest.mark.parametrize(
    ("difference", "half", "expected"),
    [
        (0.0, 0.0, "green"),
        (0.03, 0.02, "green"),
        (0.03, 0.08, "amber"),  # within the budget as far as we know, and we know too little
        (0.031, 0.0, "amber"),
        (0.10, 0.0, "amber"),
        (0.101, 0.0, "red"),
        (0.101, 0.05, "red"),
        (0.15, 0.13, "amber"),  # it may be within the budget
        (1.437, 0.1, "red"),  # X3's worst corner
        (-0.5, 0.1, "green"),
    ],
)
def test_the_levels_of_c10(difference: float, half: float, expected: Level) -> None:
    assert of_nats(difference, half, half) == expected


@given(nats, nats, widths, widths, budgets)
def test_more_loss_is_never_a_better_level(one: float, other: float, below: float, above: float, budget: float) -> None:
    limits = nats_limits(budget)
    less, more = sorted((one, other))
    assert ORDER.index(of_nats(less, below, above, limits)) <= ORDER.index(of_nats(more, below, above, limits))


@given(nats, widths, widths, budgets)
def test_green_shuts_red_out_and_red_shuts_green_out(
    difference: float, below: float, above: float, budget: float
) -> None:
    limits = nats_limits(budget)
    assert limits.amber is not None and limits.red is not None and limits.amber < limits.red
    found = of_nats(difference, below, above, limits)
    assert found != "green" or (difference <= budget and difference + above <= limits.red)
    assert found != "red" or (difference > limits.red and difference - below > budget)


@given(budgets, budgets)
def test_a_larger_budget_never_makes_it_worse(one: float, other: float) -> None:
    small, large = nats_limits(min(one, other)), nats_limits(max(one, other))
    assert small.red is not None and large.red is not None
    assert small.red <= large.red and small.red >= 0.10
    assert nats_limits(0.06).red == pytest.approx(0.20)


def of_choice(fell: float, half: float, baseline: float = 0.49, items: int = 80) -> Level:
    return level("choice", -fell, (-fell - half, -fell + half), choice_limits(baseline, 0.25, items))


def test_a_share_is_judged_by_what_the_base_has_above_guessing() -> None:
    assert of_choice(0.0, 0.1) == of_choice(0.06, 0.07) == "green"  # chance explains it
    assert of_choice(0.06, 0.05) == "amber"
    assert of_choice(0.09, 0.05) == "red"  # a third of 49 - 25 points is 8
    assert of_choice(0.09, 0.10) == "green"
    assert of_choice(0.09, 0.05, baseline=0.95) == "amber"  # of 95 - 25 points it is not a third
    assert of_choice(0.09, 0.05, baseline=0.26) == "unknown"  # a base that guesses has nothing to lose


@given(st.integers(0, 1000).map(lambda n: n / 1000), st.integers(0, 1000).map(lambda n: n / 1000), st.integers(6, 500))
def test_a_base_that_cannot_be_told_from_guessing_is_unknown(baseline: float, chance: float, items: int) -> None:
    limits = choice_limits(baseline, chance, items)
    assert limits == limits_of("choice", 0.03, baseline, chance, items)
    if baseline <= chance:
        assert limits.red is None
    if limits.red is not None:
        assert 0 < limits.red <= baseline - chance


def test_too_few_items_say_nothing() -> None:
    def said(items: int) -> Level:
        return slice_of(
            "t", "general_loss", items=items, baseline=1.0, value=3.0, interval=(1.9, 2.1), limits=C10
        ).level

    assert (said(5), said(6)) == ("unknown", "red")


def test_the_worst_slice_counts_and_none_is_averaged() -> None:
    assert worst(["green", "red", "amber"]) == "red"
    assert worst(["unknown", "green"]) == "green" and worst(["unknown"]) == worst([]) == "unknown"
