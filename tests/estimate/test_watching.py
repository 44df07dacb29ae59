"""How often is looked: within 5 % of long runs, before and after in short ones, together with validations."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.estimate.course import times
from rankwise.estimate.watching import (
    LEAST_ITEMS,
    LONG_SECONDS,
    MOST_LOOKS,
    SHARE,
    cadence,
    fitting,
    look,
    plan_watch,
)
from tests import builders

SETS = builders.facts_to_watch().data.watched
steps = st.integers(1, 20_000)


def planned(run: float | None, one: float | None, max_steps: int = 100, every: int = 25, asked: int | None = None):  # type: ignore[no-untyped-def]
    """With looks of `one` seconds at all 80 items, and in proportion at fewer."""
    return plan_watch(SETS, asked, max_steps, every, run, lambda n: None if one is None else one * n / 80)


@given(st.floats(LONG_SECONDS, 1e6), st.floats(0.1, 400), steps, st.integers(1, 40))
def test_a_long_run_pays_less_than_5_percent(run: float, one: float, max_steps: int, parts: int) -> None:
    found = planned(run, one, max_steps, math.ceil(max_steps / parts))
    assert found.looks >= 2 and found.seconds is not None
    if found.items > LEAST_ITEMS:
        assert found.seconds < SHARE * run
    assert found.seconds == pytest.approx(found.looks * one * found.items / 80)


@given(st.floats(1, LONG_SECONDS - 1), st.floats(0.1, 400), steps)
def test_a_short_run_looks_before_and_after_at_everything(run: float, one: float, max_steps: int) -> None:
    found = planned(run, one, max_steps, math.ceil(max_steps / 4))
    assert found.looks >= 2 and found.items == 80
    assert found.looks == 2 or (found.seconds is not None and found.seconds < SHARE * run)


@given(steps, st.integers(1, 5000), st.integers(1, MOST_LOOKS))
def test_looks_fall_together_with_validations(max_steps: int, eval_steps: int, after: int) -> None:
    eval_steps = min(eval_steps, max_steps)
    every = cadence(eval_steps, times(max_steps, eval_steps), after)
    assert every % eval_steps == 0 or eval_steps % every == 0
    assert math.ceil(max_steps / every) <= max(after, 1)


def test_an_hour_of_the_embedded_model() -> None:
    found = planned(3600, 10.0)
    assert (found.items, found.seconds, found.looks) == (80, 10.0 * found.looks, 5)  # at each of the four validations
    assert planned(36_000, 10.0).looks == 21


def test_what_the_job_says_is_done() -> None:
    found = planned(3600, 10.0, asked=10)
    assert (found.steps, found.looks, found.items, found.seconds) == (10, 11, 80, 110.0)


def test_without_a_rate_the_cost_is_unknown_and_not_nothing() -> None:
    found = planned(None, None)
    assert (found.looks, found.seconds, found.share) == (5, None, None)


def test_fewer_items_are_less_work() -> None:
    whole, some = look(SETS, 80), look(SETS, 20)
    assert whole.tokens > some.tokens and whole.rows == 8 + 48 + 80 and some.rows == 8 + 20 + 20
    assert fitting(80, lambda n: n <= 33) == 33 and fitting(80, lambda n: False) == LEAST_ITEMS
    assert fitting(9, lambda n: False) == 9


def test_a_plan_says_how_often_and_what_it_costs() -> None:
    plan, without = builders.plan(seen=builders.facts_to_watch()), builders.plan()
    time, before = plan.chosen().time, without.chosen().time  # type: ignore[union-attr]
    assert time.watch and time.watch.seconds and time.train_seconds and before.train_seconds
    assert time.train_seconds == pytest.approx(before.train_seconds + time.watch.seconds)
    assert time.watch.share == pytest.approx(time.watch.seconds / time.train_seconds)
    config = plan.verdict.config
    assert config and (config.watch_steps, config.watch_items) == (time.watch.steps, time.watch.items)
    (why,) = [r for r in plan.reasons if r.rule == "forgetting_watch"]
    assert why.number and f"{time.watch.looks} looks" in why.number and " s, " in why.number
    assert without.verdict.config and without.verdict.config.watch_steps is None
