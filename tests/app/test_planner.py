"""Plans in their own thread: the newest of a page wins, equal ones are made once, what fails is told."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rankwise import api
from rankwise.app.planner import Planner, Wish
from rankwise.errors import ModelError
from rankwise.records import Job
from tests.report.conftest import build_plan

PLAN = build_plan()
JOB: Job = PLAN.job
WAIT = 60  # seconds


class Slow:
    """A plan that takes as long as the test wants, and tells how far it is whenever it is let go on."""

    def __init__(self) -> None:
        self.began, self.goes_on, self.calls = threading.Event(), threading.Event(), 0

    def __call__(self, job: Job, out: Path | None = None, progress: Any = None) -> Any:
        self.calls += 1
        self.began.set()
        for done in range(1000):
            progress("ways priced", done, 1000)
            if self.goes_on.wait(0.02):
                return PLAN
        raise AssertionError("nobody let it end")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Tracing takes what it takes; here it is the queue before it that is tested."""
    slow = Slow()
    monkeypatch.setattr("rankwise.api.planning.plan_job", slow)
    assert api.plan_job is slow
    return slow


@pytest.fixture
def planner() -> Iterator[Planner]:
    planner = Planner()
    yield planner
    planner.close()


def ended(wish: Wish) -> Wish:
    assert wish.ended.wait(WAIT)
    return wish


def test_a_newer_wish_of_a_page_ends_the_older_one(planner: Planner, slow: Slow) -> None:
    old = planner.ask("a", "page", JOB, {})
    assert slow.began.wait(WAIT)
    between, new = planner.ask("b", "page", JOB, {}), planner.ask("c", "page", JOB, {})
    assert ended(old).state == ended(between).state == "superseded"
    slow.goes_on.set()
    assert ended(new).state == "done" and new.plan is PLAN and new.seconds is not None
    assert slow.calls == 2, "the one between was never begun"


def test_another_page_waits_for_its_turn(planner: Planner, slow: Slow) -> None:
    first = planner.ask("a", "one", JOB, {})
    assert slow.began.wait(WAIT)
    second = planner.ask("b", "another", JOB, {})
    assert (first.state, second.state) == ("working", "waiting")
    slow.goes_on.set()
    assert ended(first).state == ended(second).state == "done"


def test_an_equal_wish_is_not_planned_again(planner: Planner, slow: Slow) -> None:
    first = planner.ask("a", "page", JOB, {})
    assert planner.ask("a", "page", JOB, {}) is first
    slow.goes_on.set()
    ended(first)
    again = planner.ask("a", "elsewhere", JOB, {"goal": "task"})
    assert again.state == "done" and again.plan is PLAN and again.given == {"goal": "task"} and slow.calls == 1
    assert planner.find(again.id) is again and planner.find("nothing") is None


def test_what_fails_is_told_and_the_next_one_is_planned(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [ModelError("no such model"), ZeroDivisionError("by zero")]

    def fail(job: Job, out: Path | None = None, progress: Any = None) -> Any:
        raise faults.pop(0)

    monkeypatch.setattr("rankwise.api.planning.plan_job", fail)
    known, unknown = (ended(planner.ask(key, key, JOB, {})) for key in "ab")
    assert known.state == unknown.state == "failed"
    assert known.error is not None and known.error.what == "no such model"
    assert unknown.error is not None and "internal error: ZeroDivisionError" in unknown.error.what


def test_the_end_gives_up_what_is_not_done(planner: Planner, slow: Slow) -> None:
    working = planner.ask("a", "page", JOB, {})
    assert slow.began.wait(WAIT)
    planner.close()
    assert ended(working).state == "superseded"


def test_old_plans_are_forgotten(planner: Planner, slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankwise.app.planner.KEPT", 3)
    slow.goes_on.set()
    wishes = [ended(planner.ask(str(n), "page", JOB, {})) for n in range(6)]
    kept = [planner.find(w.id) is not None for w in wishes]
    assert kept == [False, False, False, True, True, True]
