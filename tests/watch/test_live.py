"""A run folded from its events: each finding once, what a resume undoes, and the time that is left."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.records import Event, Plan, Step, Validation
from rankwise.watch.findings import find
from rankwise.watch.live import FEWEST, LiveRun, time_left
from tests import builders
from tests.builders import finished, saved, started, step, stopped, validation, watched, whole_run

PLAN = builders.plan()


def seen(events: list[Event], plan: Plan | None = PLAN) -> LiveRun:
    run = LiveRun(plan)
    for event in events:
        run.see(event)
    return run


def test_each_finding_is_told_once_when_it_first_holds() -> None:
    run, told = LiveRun(PLAN), []
    norms = [1.0] * 12 + [40.0] + [1.0] * 5
    for n, norm in enumerate(norms, 1):
        told += [(n, f.name) for f in run.see(step(n, grad_norm=norm))]
    assert [(n, name) for n, name in told if name == "gradient_spikes"] == [(13, "gradient_spikes")]
    assert [f.name for f in run.findings] == [name for _, name in told]


def test_a_finding_that_gets_worse_is_told_again() -> None:
    run = seen([step(n, grad_norm=1.0) for n in range(1, 13)])
    levels = [f.level for n in range(13, 16) for f in run.see(step(n, grad_norm=40.0)) if f.name == "gradient_spikes"]
    assert levels == ["warning", "fault"]


def test_at_the_end_all_that_hold_have_been_told() -> None:
    events = whole_run()
    assert {f.name for f in find(PLAN, events)} <= {f.name for f in seen(events).findings}


def test_of_long_runs_not_every_step_is_looked_at_and_nothing_is_lost() -> None:
    events: list[Event] = [step(n, grad_norm=40.0 if n == 1501 else 1.0) for n in range(1, 1601)]
    assert [f.name for f in seen(events).findings].count("gradient_spikes") == 1


def test_a_resume_undoes_what_was_taken_after_its_checkpoint() -> None:
    head = [e for e in whole_run() if getattr(e, "step", 0) <= 7 and e.event != "finished"]
    run = seen([*head, stopped(7), started(5)])
    assert [s.step for s in run.all(Step)] == [1, 2, 3, 4, 5] and run.last(Validation) == validation(5, 0.4)
    assert not run.ended


def test_it_has_ended_when_its_last_event_says_so() -> None:
    assert not seen([]).ended and not seen(whole_run()[:-1]).ended
    assert seen(whole_run()).ended and seen([step(1), stopped(1)]).ended


def taken(seconds: list[float], **changes: Any) -> LiveRun:
    steps = [step(n, seconds=took) for n, took in enumerate(seconds, 1)]
    return seen([started(**changes), *steps])


def test_time_left_is_the_plans_before_steps_are_measured() -> None:
    estimate = PLAN.chosen()
    assert estimate and estimate.time.step_seconds and estimate.time.relative
    left = time_left(taken([100.0] * FEWEST))
    assert left and left.source == "planned"
    assert left.seconds == pytest.approx((20 - FEWEST) * estimate.time.step_seconds)
    assert left.interval == pytest.approx(tuple(left.seconds * end for end in estimate.time.relative))
    assert time_left(seen([started(), step(1)], None)) is None
    assert time_left(seen([step(1)], None)) is None


def test_time_left_is_measured_without_the_first_step() -> None:
    left = time_left(taken([100.0, *[2.0] * FEWEST]))
    assert left and left.source == "measured"
    assert (left.seconds, left.interval) == ((20 - 1 - FEWEST) * 2.0, (28.0, 28.0))


def test_validations_checkpoints_and_watches_that_are_still_to_come_count() -> None:
    run = taken([1.0] * 10)
    config = PLAN.verdict.config
    assert config
    plain = time_left(run)
    for event in (validation(5, 1.0), validation(10, 1.0), saved(10), watched(10)):
        run.see(event)
    left = time_left(run)
    still = len({n for n in range(11, 21) if n % config.eval_steps == 0} | {20})
    saves = len({n for n in range(11, 21) if n % config.save_steps == 0} | {20})
    assert plain and left
    assert left.seconds - plain.seconds == pytest.approx(still * 3.0 + saves * 0.1 + 1.5)


@given(st.lists(st.floats(0.01, 1000), min_size=FEWEST + 1, max_size=20))
def test_time_left_lies_in_its_interval_and_is_nothing_at_the_end(seconds: list[float]) -> None:
    left = time_left(taken(seconds, max_steps=40))
    assert left and left.interval[0] <= left.seconds <= left.interval[1]
    done = time_left(taken(seconds, max_steps=len(seconds)))
    assert done and (done.seconds, done.interval) == (0.0, (0.0, 0.0))


def test_the_steps_of_a_run_are_those_of_its_start() -> None:
    config = PLAN.verdict.config
    assert config and seen([]).max_steps == config.max_steps
    assert seen([started(max_steps=7)]).max_steps == 7
    assert seen([finished()], None).max_steps is None
