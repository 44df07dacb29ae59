"""What the looks of a run leave behind: the level of what is published, the frontier, and findings with advice."""

from typing import Any

import pytest

from rankwise.records import Acted, Event, Level, Watched
from rankwise.watch.evidence import summarise
from rankwise.watch.forgotten import drifting, forgot, forgotten, frontier
from tests import builders
from tests.builders import TIME, finished, saved, started, step, validation

PLAN = builders.plan()


def look(n: int, difference: float = 0.0, level: Level = "green", kl: float | None = 0.01) -> Watched:
    seen = builders.watched(n, difference)
    part = seen.slices[0].model_copy(update={"level": level})
    return seen.model_copy(update={"slices": (part,), "level": level, "kl": kl})


def acted(n: int, action: str, **changes: Any) -> Acted:
    return Acted.model_validate({"time": TIME, "step": n, "action": action, "reason": "red", **changes})


def run(*looks: Watched, end: int = 20, losses: dict[int, float] | None = None, also: Any = ()) -> list[Event]:
    losses = losses or {0: 2.5, 5: 2.0, 10: 1.5, 15: 1.2, 20: 1.0}
    events: list[Event] = [started(), validation(0, losses[0])]
    for n in range(1, end + 1):
        events.append(step(n))
        if n in losses:
            events.append(validation(n, losses[n]))
        events += [w for w in (*looks, *also) if w.step == n]
        if n in losses:
            events.append(saved(n))
    return [*events[:2], *(w for w in looks if w.step == 0), *events[2:], finished(end)]


RED_LATE = (look(0), look(5), look(10, 0.05, "amber"), look(15, 0.2, "red"), look(20, 0.3, "red"))


def test_nobody_looked() -> None:
    assert forgotten(PLAN, run()) is None and forgot(PLAN, run()) is None
    assert summarise(PLAN, run()).forgetting is None


def test_the_level_is_that_of_the_weights_that_are_published() -> None:
    found = forgotten(PLAN, run(*RED_LATE))
    assert found and (found.level, found.step, found.worst, found.worst_step) == ("red", 20, "red", 15)
    best_early = {0: 2.5, 5: 1.0, 10: 1.5, 15: 1.6, 20: 1.7}
    found = forgotten(PLAN, run(*RED_LATE, losses=best_early))
    assert found and (found.level, found.step, found.worst) == ("green", 5, "red")
    back = acted(15, "rollback", back_to=5)
    found = forgotten(PLAN, run(*RED_LATE[:4], end=15, also=[back]))
    assert found and (found.level, found.step, found.worst, found.worst_step) == ("green", 5, "red", 15)
    assert found.looks == 4 and found.seconds == 6.0


def test_the_frontier_has_the_states_with_both_numbers() -> None:
    points = frontier(run(look(0), look(7), *RED_LATE[1:]))
    assert [(p.step, p.task_loss) for p in points] == [(0, 2.5), (5, 2.0), (10, 1.5), (15, 1.2), (20, 1.0)]
    assert points[3].differences == {"general text": 0.2} and points[3].level == "red"


def test_a_run_that_was_cut_short_took_no_time_that_was_planned() -> None:
    back = acted(15, "rollback", back_to=5)
    found = {a.quantity: a.actual for a in summarise(PLAN, run(*RED_LATE[:4], end=15, also=[back])).actuals}
    assert found["train_seconds"] is None and found["save_seconds"] is None and found["step_seconds"] == 1.0


def test_thresholds_are_stated_for_this_base() -> None:
    found = forgotten(PLAN, run(*RED_LATE))
    assert found
    (limit,) = found.thresholds
    assert (limit.slice, limit.amber, limit.red, limit.baseline) == ("general text", 0.03, 0.1, 2.9)


def test_red_is_a_fault_with_the_advice_of_c10b() -> None:
    found = forgot(PLAN, run(*RED_LATE))
    assert found and (found.name, found.level) == ("forgot", "fault") and "+0.300" in str(found.number)
    assert found.advice and PLAN.verdict.config
    rate = f"{PLAN.verdict.config.learning_rate / 3:.1e}"
    places = [found.advice.index(said) for said in (rate, "data.general", "rank", "step 5 was still green")]
    assert places == sorted(places)  # first the rate, then replay, then the rank


def test_what_was_mended_is_a_warning_and_what_was_never_red_is_none() -> None:
    back = acted(15, "rollback", back_to=5)
    found = forgot(PLAN, run(*RED_LATE[:4], end=15, also=[back]))
    assert found and found.level == "warning" and "rollback" in found.text and "step 5" in found.text
    amber = forgot(PLAN, run(*RED_LATE[:3], look(20, 0.05, "amber")))
    assert amber and amber.level == "warning"
    assert forgot(PLAN, run(look(0), look(20))) is None


@pytest.mark.parametrize(
    ("kls", "losses", "drifts"),
    [
        ((0.01, 0.02, 0.04), (1.5, 1.2, 1.2), True),
        ((0.01, 0.02, 0.04), (1.5, 1.2, 1.0), False),  # it still learns
        ((0.01, 0.02, 0.021), (1.5, 1.2, 1.2), False),  # it stands still
        ((None, None, None), (1.5, 1.2, 1.2), False),
    ],
)
def test_moving_away_without_learning_is_said(kls: Any, losses: Any, drifts: bool) -> None:
    events = run(
        *(look(n, kl=kl) for n, kl in zip((5, 10, 15), kls, strict=True)),
        end=15,
        losses=dict(zip((0, 5, 10, 15), (2.5, *losses), strict=True)),
    )
    assert (drifting(PLAN, events) is not None) == drifts
