"""Each finding fires where it should and is silent where it should be."""

from collections.abc import Sequence

import pytest

from rankwise.records import Event, Finding, Plan
from rankwise.watch.findings import FINDINGS, find
from tests import builders
from tests.builders import finished, step, validation, whole_run

PLAN = builders.plan()


def found(name: str, events: Sequence[Event], plan: Plan = PLAN) -> Finding | None:
    return next((f for f in find(plan, events) if f.name == name), None)


def losses(*values: float) -> list[Event]:
    return [validation(5 * i, value) for i, value in enumerate(values)]


def norms(*values: float) -> list[Event]:
    return [step(i, grad_norm=value) for i, value in enumerate(values, 1)]


def timed(seconds: float) -> list[Event]:
    return [step(i, seconds=seconds) for i in range(1, 4)]


def test_findings_are_told_in_their_order_under_their_own_names() -> None:
    slow = PLAN.model_copy()
    names = [f.name for f in find(slow, [*losses(2.5, 2.0, 1.0, 2.0), *timed(1e6), finished(peak_memory_bytes=10**12)])]
    order = [f.__name__ for f in FINDINGS]
    assert names == sorted(names, key=order.index) and len(names) == 4


def test_an_ordinary_run_is_good_news_alone() -> None:
    assert [(f.name, f.level) for f in find(PLAN, whole_run())] == [("learned", "good")]


def test_a_run_without_events_says_nothing() -> None:
    assert find(PLAN, []) == []


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ((2.5, 2.0), "good"),
        ((2.5, 2.6, 2.4), "good"),
        ((2.5, 2.5), "fault"),
        ((2.5, 2.6, 2.7), "fault"),
        ((2.5,), None),
        ((), None),
    ],
)
def test_learned_compares_the_best_with_the_untouched_base(values: tuple[float, ...], level: str | None) -> None:
    finding = found("learned", losses(*values))
    assert (finding and finding.level) == level
    if finding and level == "fault":
        assert finding.advice and "learning rate" in finding.advice


def test_learned_is_silent_without_a_baseline() -> None:
    assert found("learned", [validation(5, 2.0)]) is None


@pytest.mark.parametrize(
    ("values", "fires"),
    [
        ((2.5, 1.0, 1.2, 1.3), True),
        ((2.5, 2.0, 1.0, 1.06), True),
        ((2.5, 2.0, 1.0, 1.04), False),
        ((2.5, 2.0, 1.5, 1.0), False),
        ((2.5, 1.0, 2.0), False),  # two validations are too few to call it
        ((0.1, 1.0, 1.0, 1.0), False),  # the base does not count
    ],
)
def test_overfitting_is_a_rise_of_five_percent_from_the_best(values: tuple[float, ...], fires: bool) -> None:
    finding = found("overfitting", losses(*values))
    assert (finding is not None) == fires
    if finding:
        assert f"{min(values[1:]):.3f} -> {values[-1]:.3f}" in str(finding.number) and finding.level == "warning"


@pytest.mark.parametrize(
    ("values", "fires"),
    [
        ((1.0,) * 9 + (10.0,), True),
        ((1.0,) * 9 + (9.9,), False),
        ((50.0,) * 2 + (1.0,) * 9, False),  # the first five steps may be wild
        ((1.0,) * 8 + (10.0,), False),  # nine steps are too few
        ((0.0,) * 12, False),
    ],
)
def test_a_gradient_spike_is_ten_times_the_median(values: tuple[float, ...], fires: bool) -> None:
    assert (found("gradient_spikes", norms(*values)) is not None) == fires


def test_slow_steps_are_measured_against_the_plans_interval() -> None:
    estimate, config = PLAN.chosen(), PLAN.verdict.config
    assert estimate and estimate.time.interval and config
    limit = estimate.time.interval[1] / config.max_steps
    assert found("slower_than_planned", timed(limit * 0.99)) is None
    finding = found("slower_than_planned", timed(limit * 1.01))
    assert finding and finding.level == "warning" and finding.advice


def test_memory_is_measured_against_the_plans_interval() -> None:
    estimate = PLAN.chosen()
    assert estimate
    limit = int(estimate.memory.interval[1])
    assert found("more_memory_than_planned", [finished(peak_memory_bytes=limit - 1)]) is None
    assert found("more_memory_than_planned", [finished(peak_memory_bytes=limit + 1)])
    assert found("more_memory_than_planned", [finished(peak_memory_bytes=None)]) is None
    assert found("more_memory_than_planned", timed(1.0)) is None


def test_a_plan_without_predictions_is_not_missed() -> None:
    unknown = builders.plan(seen=builders.facts(device=builders.a100(matmul_flops={})))
    assert found("slower_than_planned", timed(1e9), unknown) is None
