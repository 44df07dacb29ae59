"""Findings of learning: where each is raised, where it is not, and exactly between."""

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.records import Event, Finding, Plan
from rankwise.watch.learning import (
    FEWEST,
    FILLED,
    WINDOW,
    diverging,
    learned,
    loss_at_zero,
    names_and_numbers,
    overfitting,
    underfitting_at_capacity,
)
from tests import builders
from tests.builders import finished, step, validation

PLAN = builders.plan()


def checks(*values: float) -> list[Event]:
    return [validation(5 * i, value) for i, value in enumerate(values)]


def losses(values: Sequence[float]) -> list[Event]:
    return [step(n, loss=value) for n, value in enumerate(values, 1)]


def level(finding: Callable[..., Finding | None], events: Sequence[Event], plan: Plan | None = PLAN) -> str | None:
    found = finding(plan, events)
    return found and found.level


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((2.5, 2.0), "good"),
        ((2.5, 2.6, 2.4), "good"),
        ((2.5, 2.5), None),  # the first look may be too early
        ((2.5, 2.5, 2.5), "fault"),
        ((2.5, 2.6, 2.7), "fault"),
        ((2.5,), None),
        ((), None),
    ],
)
def test_learned_compares_the_best_with_the_untouched_base(values: tuple[float, ...], expected: str | None) -> None:
    finding = learned(PLAN, checks(*values))
    assert (finding and finding.level) == expected
    if finding and expected == "fault":
        assert finding.advice and "learning rate" in finding.advice


def test_learned_is_said_at_the_end_even_of_a_run_with_one_validation() -> None:
    assert level(learned, [*checks(2.5, 2.5), finished()]) == "fault"


def test_learned_is_silent_without_a_baseline() -> None:
    assert learned(PLAN, [validation(5, 2.0), finished()]) is None


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
    finding = overfitting(PLAN, checks(*values))
    assert (finding is not None) == fires
    if finding:
        assert f"{min(values[1:]):.3f} -> {values[-1]:.3f}" in str(finding.number) and finding.level == "warning"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.0,), "fault"),
        ((0.0, 1.0, 1.0), "fault"),
        ((2.0, 0.0, 0.0), None),  # twice may be chance
        ((2.0, 0.0, 0.0, 0.0), "warning"),
        ((2.0, 0.0, 0.0, 0.0, 1e-9), None),  # it learns again
        ((1e-9, 1e-9, 1e-9, 1e-9), None),
        ((), None),
    ],
)
def test_a_loss_of_exactly_zero(values: tuple[float, ...], expected: str | None) -> None:
    assert level(loss_at_zero, losses(values)) == expected


def test_a_loss_of_zero_names_the_step_since_which_it_is() -> None:
    finding = loss_at_zero(PLAN, losses((2.0, 0.0, 1.0, 0.0, 0.0, 0.0)))
    assert finding and "since step 4" in finding.text


FALLING = [2.0 - 0.05 * n for n in range(WINDOW)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([*[2.0] * WINDOW, *[1.0] * WINDOW, *[1.21] * WINDOW], "warning"),
        ([*[2.0] * WINDOW, *[1.0] * WINDOW, *[1.19] * WINDOW], None),
        ([*[2.0] * WINDOW, *[1.0] * WINDOW, *[2.01] * WINDOW], "fault"),
        ([*[2.0] * WINDOW, *[2.5] * (WINDOW - 1)], None),  # too few steps to compare two means
        ([*[2.0] * WINDOW, *[2.5] * WINDOW], "fault"),
        ([*FALLING, *FALLING], None),
        # a fifth higher, and the losses of single steps differ by more than that
        ([*[0.2, 1.8] * (WINDOW // 2), *[0.5, 1.9] * (WINDOW // 2)], None),
    ],
)
def test_diverging_is_a_rise_beyond_noise(values: list[float], expected: str | None) -> None:
    assert level(diverging, losses(values)) == expected


@given(
    st.lists(st.floats(0.01, 20.0), min_size=WINDOW, max_size=60).map(lambda x: sorted(x, reverse=True)),
    st.floats(0.1, 10.0),
)
def test_a_loss_that_never_rises_does_not_diverge_in_any_unit(values: list[float], unit: float) -> None:
    assert diverging(None, losses(values)) is None
    assert diverging(None, losses([unit * v for v in values])) is None


@given(st.integers(WINDOW, 40), st.floats(1.5, 10.0))
def test_a_run_that_leaves_its_start_for_good_diverges(quiet: int, times: float) -> None:
    assert level(diverging, losses([1.0] * quiet + [times] * WINDOW), None) == "fault"


def holding(bits: float | None) -> Plan:
    return PLAN.model_copy(update={"held_bits": bits})


def plateau(high: float, first: float = 2.0, steps: int = 100) -> list[Event]:
    """Falls in its first fifth, and is flat after that."""
    fall = steps // 5
    return losses([first] * WINDOW + [high] * (steps - WINDOW - fall) + [high] * fall)


TAUGHT = 0.8 / math.log(2) * PLAN.facts.data.supervised_tokens  # bits, of a fall from 2.0 to 1.2 nats


@pytest.mark.parametrize(
    ("events", "held", "fires"),
    [
        (plateau(1.2), TAUGHT / FILLED / 1.01, True),
        (plateau(1.2), TAUGHT / FILLED * 1.01, False),  # it has room left
        (plateau(0.9), TAUGHT / 10, False),  # more than half is learned
        (plateau(1.2, steps=39), TAUGHT / 10, False),  # too few steps to call it flat
        (losses([2.0 - 0.008 * n for n in range(100)]), TAUGHT / 10, False),  # it still falls
        (plateau(1.2), None, False),  # all weights train
    ],
)
def test_underfitting_needs_a_full_adapter_and_a_high_flat_loss(
    events: list[Event], held: float | None, fires: bool
) -> None:
    assert (underfitting_at_capacity(holding(held), events) is not None) == fires


def test_underfitting_is_silent_without_a_plan() -> None:
    assert underfitting_at_capacity(None, plateau(1.2)) is None


def test_a_plan_says_what_its_adapter_holds() -> None:
    estimate = PLAN.chosen()
    assert estimate and PLAN.held_bits == estimate.trainable_params * 1.0  # a style job: one bit a parameter
    assert PLAN.need_bits == PLAN.facts.data.supervised_tokens * 1.0  # assumed: one bit a token
    whole = builders.plan(builders.job(method={"name": "full"}))
    assert whole.held_bits is None and whole.need_bits == PLAN.need_bits


def told(step: int, facts: float | None, others: float | None, many: int = 400) -> Event:
    known = None if facts is None else many
    return validation(step, 1.0, fact_tokens=known, fact_accuracy=facts, other_accuracy=others)


@pytest.mark.parametrize(
    ("events", "fires"),
    [
        ([told(0, 0.3, 0.5), told(10, 0.35, 0.9)], True),
        ([told(0, 0.3, 0.5), told(10, 0.6, 0.75)], False),  # facts gained more
        ([told(0, 0.3, 0.5), told(10, 0.35, 0.44)], False),  # no gap to speak of
        ([told(10, 0.35, 0.9)], True),  # the base is not known
        ([told(0, 0.3, 0.9)], False),  # the base alone says nothing of the run
        ([told(0, 0.3, 0.5, FEWEST - 1), told(10, 0.35, 0.9, FEWEST - 1)], False),
        ([told(0, 0.3, 0.5, FEWEST), told(10, 0.35, 0.9, FEWEST)], True),
        ([told(0, 0.5, 0.6, FEWEST), told(10, 0.5, 0.66, FEWEST)], False),  # 16 points on 30 tokens are chance
        ([told(0, 0.5, 0.6), told(10, 0.5, 0.66)], True),  # on 400 they are not
        ([told(0, None, None), told(10, None, None)], False),
    ],
)
def test_names_and_numbers_lag_behind_manner(events: list[Event], fires: bool) -> None:
    assert (names_and_numbers(PLAN, events) is not None) == fires


def test_names_and_numbers_are_told_with_what_each_gained() -> None:
    finding = names_and_numbers(PLAN, [told(0, 0.3, 0.5), told(10, 0.35, 0.9)])
    assert finding and finding.number == (
        "400 tokens of names and numbers 35 % right (+5 points), the rest 90 % right (+40 points)"
    )


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 1700))
def test_facts_that_are_known_as_well_as_the_rest_are_never_a_finding(facts: float, more: float, many: int) -> None:
    better = facts + (1 - facts) * more
    assert names_and_numbers(None, [told(10, better, facts, many)]) is None
