"""Findings of resources: tokens a second and bytes against the plan's intervals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.records import Event
from rankwise.watch.resources import (
    FEWEST,
    more_memory_than_planned,
    peak_memory,
    planned_speed,
    slower_than_planned,
    speed,
)
from tests import builders
from tests.builders import finished, rehearsed, step

PLAN = builders.plan()
PLANNED = planned_speed(PLAN)
assert PLANNED
TOKENS = 700


def at(tokens_per_second: float, steps: int = FEWEST + 1) -> list[Event]:
    """Steps of that speed after a first one that took an hour."""
    first = step(1, tokens=TOKENS, seconds=3600.0)
    return [first, *(step(n, tokens=TOKENS, seconds=TOKENS / tokens_per_second) for n in range(2, steps + 1))]


def test_the_plan_foresees_a_speed_with_an_interval() -> None:
    estimate = PLAN.chosen()
    assert estimate and estimate.time.relative
    expected, (low, high) = PLANNED or (0, (0, 0))
    assert low < expected == estimate.time.tokens_per_second < high
    assert (expected / high, expected / low) == pytest.approx(estimate.time.relative)


def test_slow_is_below_the_lower_end_and_said_in_tokens_per_second() -> None:
    low = PLANNED[1][0] if PLANNED else 0.0
    assert slower_than_planned(PLAN, at(low * 1.01)) is None
    finding = slower_than_planned(PLAN, at(low * 0.99))
    assert finding and finding.level == "warning" and finding.advice
    assert finding.number and finding.number.startswith(f"{low * 0.99:,.0f} tokens/s, planned")


def test_speed_is_known_after_a_few_steps_and_without_the_first() -> None:
    assert slower_than_planned(PLAN, at(1e-3, steps=FEWEST)) is None
    assert slower_than_planned(PLAN, at(1e-3, steps=FEWEST + 1))
    assert speed([]) is None


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0.01, 100)), min_size=FEWEST + 1, max_size=30))
def test_speed_is_that_of_all_steps_together(taken: list[tuple[int, float]]) -> None:
    steps = [step(n, tokens=tokens, seconds=seconds) for n, (tokens, seconds) in enumerate(taken, 1)]
    single = [tokens / seconds for tokens, seconds in taken[1:]]
    found = speed(steps)
    assert found is not None and min(single) * 0.999 <= found <= max(single) * 1.001


def test_memory_is_measured_against_the_plans_interval() -> None:
    estimate = PLAN.chosen()
    assert estimate
    limit = int(estimate.memory.interval[1])
    assert more_memory_than_planned(PLAN, [finished(peak_memory_bytes=limit - 1)]) is None
    assert more_memory_than_planned(PLAN, [finished(peak_memory_bytes=limit + 1)])
    assert more_memory_than_planned(PLAN, [finished(peak_memory_bytes=None)]) is None
    assert more_memory_than_planned(PLAN, at(1.0)) is None
    early = rehearsed().model_copy(update={"peak_memory_bytes": limit + 1})
    assert more_memory_than_planned(PLAN, [early]), "seen after the first step, not only at the end"


def test_the_highest_peak_counts() -> None:
    early = rehearsed().model_copy(update={"peak_memory_bytes": 5})
    assert peak_memory([early, finished(peak_memory_bytes=3)]) == 5
    assert peak_memory([rehearsed(), finished(peak_memory_bytes=None)]) is None


def test_a_plan_without_predictions_is_not_missed() -> None:
    unknown = builders.plan(seen=builders.facts(device=builders.a100(matmul_flops={})))
    assert slower_than_planned(unknown, at(1e-9)) is None
    assert slower_than_planned(None, at(1e-9)) is more_memory_than_planned(None, [finished()]) is None
