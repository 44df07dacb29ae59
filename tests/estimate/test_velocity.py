"""Turnaround, runs a week and runs a dollar."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.estimate.money import failure_share
from rankwise.estimate.velocity import estimate_velocity
from rankwise.records import CostOptions, FlopsByPhase, MoneyEstimate, TimeEstimate

HOUR, DAY = 3600.0, 86_400.0


def time(seconds: float | None, **changes: Any) -> TimeEstimate:
    content: dict[str, Any] = {
        "flops_per_token": 1.0,
        "flops": FlopsByPhase(forward=1, backward=2, optimizer=0),
        "tokens_per_second": 100.0,
        "step_seconds": 1.0,
        "load_seconds": 60.0,
        "train_seconds": seconds,
        "interval": None if seconds is None else (seconds * 0.8, seconds * 1.25),
        "relative": (0.8, 1.25),
    }
    return TimeEstimate.model_validate(content | changes)


def money(usd: float | None) -> MoneyEstimate:
    return MoneyEstimate(train_usd=usd, interval=None)


SURE = CostOptions(failure_rate=0)


@pytest.mark.parametrize(
    ("hours", "days"),
    [(8.0, 5.0), (12.0, 7.5), (0.75, 0.47), (1.5, 0.94)],
)
def test_the_lessons_15_experiments(hours: float, days: float) -> None:
    """Full fine-tuning, 8 to 12 hours a run: 5 to 7 days, as the lesson says. QLoRA, 45 to 90 minutes: less than a day
    of machine time; the lesson's 1 to 2 days hold the nights.
    """
    found = estimate_velocity(time(hours * HOUR), money(None), SURE)
    assert found.turnaround_seconds is not None and found.runs_per_week is not None
    assert round(15 * found.turnaround_seconds / DAY, 2) == days
    assert 15 / found.runs_per_week * 7 == pytest.approx(15 * hours / 24)


def test_a_run_of_45_minutes_and_one_of_8_hours_are_11_times_apart_and_not_10() -> None:
    long, short = (estimate_velocity(time(h * HOUR), money(None), SURE).runs_per_week or 0 for h in (8.0, 0.75))
    assert short / long == pytest.approx(8 / 0.75)


def test_the_turnaround_adds_deaths_and_the_merge() -> None:
    options, interval = CostOptions(failure_rate=0.1), 0.25 * HOUR
    run = time(HOUR, merge_seconds=100.0)
    extra = failure_share(run, options, interval)
    assert extra is not None and extra > 0
    found = estimate_velocity(run, money(2.0), options, checkpoint_interval_seconds=interval)
    assert found.turnaround_seconds == pytest.approx(HOUR * (1 + extra) + 100)
    assert found.interval == pytest.approx((HOUR * 0.8 * (1 + extra) + 80, HOUR * 1.25 * (1 + extra) + 125))
    assert found.runs_per_usd == pytest.approx(HOUR / (2.0 * (found.turnaround_seconds or 0)))


def test_unknown_stays_unknown() -> None:
    nothing = estimate_velocity(time(None), money(3.0), CostOptions())
    assert (nothing.turnaround_seconds, nothing.interval, nothing.runs_per_week, nothing.runs_per_usd) == (None,) * 4
    unpriced = estimate_velocity(time(HOUR), money(None), CostOptions())
    assert unpriced.runs_per_usd is None and unpriced.runs_per_week is not None
    no_restart = estimate_velocity(time(HOUR, load_seconds=None), money(1.0), CostOptions())
    assert no_restart.turnaround_seconds is None
    assert estimate_velocity(time(HOUR, interval=None), money(1.0), SURE).interval is None
    assert estimate_velocity(time(HOUR), money(0.0), SURE).runs_per_usd is None  # a machine of one's own


seconds = st.floats(1, 1e7)
rates = st.floats(0, 0.9)


@given(seconds, seconds, rates, rates, st.floats(0, 1e4))
def test_longer_runs_more_deaths_and_a_merge_never_speed_a_team_up(
    one: float, more: float, rate: float, other: float, merge: float
) -> None:
    def turnaround(length: float, failures: float, merging: float) -> float:
        options = CostOptions(failure_rate=failures)
        found = estimate_velocity(time(length, merge_seconds=merging), money(1.0), options)
        low, high = found.interval or (0, 0)
        assert found.turnaround_seconds is not None and low <= found.turnaround_seconds <= high
        assert found.runs_per_week == pytest.approx(7 * DAY / found.turnaround_seconds)
        return found.turnaround_seconds

    base = turnaround(one, min(rate, other), 0.0)
    assert base * 0.999999 >= one * 0.999999
    assert turnaround(one + more, min(rate, other), 0.0) > base
    assert turnaround(one, max(rate, other), 0.0) >= base * 0.999999
    assert turnaround(one, min(rate, other), merge) >= base
