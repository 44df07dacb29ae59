"""Flips are true: deciding again just beyond their value gives what they say, and just before it the call of now."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.decide.choose import with_known_goal
from rankwise.decide.configure import learning_rate, sizes
from rankwise.decide.flips import COUNTS
from rankwise.decide.preference import takeable
from rankwise.decide.rungs import rungs
from rankwise.records import Facts, Flip, Job
from tests import builders
from tests.builders import GB, a100, data_facts, facts, job, llama3_8b
from tests.decide import worlds

World = tuple[Job, Facts]
CLOSE = 1e-4  # of the value: the search ends at a millionth of the logarithm between now and the far end


def with_device(facts: Facts, **update: Any) -> Facts:
    return facts.model_copy(update={"device": facts.device.model_copy(update=update)})


def memory(wanted: Job, seen: Facts, value: float) -> World:
    return wanted, with_device(seen, memory_bytes=int(value * GB))


def count(wanted: Job, seen: Facts, value: float) -> World:
    hardware = wanted.hardware.model_copy(update={"count": int(value)})
    return wanted.model_copy(update={"hardware": hardware}), with_device(seen, count=int(value) * hardware.nodes)


def data(wanted: Job, seen: Facts, value: float) -> World:
    factor = value / seen.data.supervised_tokens
    counts = {k: max(1, round(getattr(seen.data, k) * factor)) for k in ("rows", "tokens", "supervised_tokens")}
    return wanted, seen.model_copy(update={"data": seen.data.model_copy(update=counts)})


def budget(key: str) -> Callable[[Job, Facts, float], World]:
    def changed(wanted: Job, seen: Facts, value: float) -> World:
        return wanted.model_copy(update={"budget": wanted.budget.model_copy(update={key: value})}), seen

    return changed


def variants(wanted: Job, seen: Facts, value: float) -> World:
    return wanted.model_copy(update={"variants": int(value)}), seen


def forgetting(wanted: Job, seen: Facts, value: float) -> World:
    nats = wanted.forgetting.model_copy(update={"budget_nats": value})
    return wanted.model_copy(update={"forgetting": nats}), seen


AXES: dict[str, Callable[[Job, Facts, float], World]] = {
    "device.memory_bytes": memory,
    "hardware.count": count,
    "data.supervised_tokens": data,
    "budget.usd": budget("usd"),
    "budget.hours": budget("hours"),
    "variants": variants,
    "forgetting.budget_nats": forgetting,
}


def call(axis: str, wanted: Job, seen: Facts) -> str:
    """What a flip speaks of, decided by way of every ladder."""
    if axis == "forgetting.budget_nats":
        winner = worlds.called(wanted, seen).winner
        recipe = winner.recipe if winner else takeable(wanted, seen)[0]
        return f"a learning rate of {learning_rate(wanted, seen, recipe, sizes(wanted, seen).max_steps):g}"
    winner = worlds.recipe_called(wanted, seen)
    first = [r.name for r in rungs(wanted, seen, None) if r.first] if winner != "none" else []
    return f"{' and '.join(first)} first / {winner}"


def just_before(flip: Flip) -> float:
    """Counts of devices are looked at in doublings, tenants one by one, the rest to a millionth of the logarithm."""
    towards = 1 if flip.now > flip.at else -1
    if flip.axis == "hardware.count":
        between = [float(n) for n in COUNTS if min(flip.now, flip.at) <= n <= max(flip.now, flip.at)] + [flip.now]
        return min((n for n in between if n != flip.at), key=lambda n: abs(n - flip.at))
    return flip.at + towards if flip.axis == "variants" else flip.at * (1 + CLOSE * towards)


def check(wanted: Job, seen: Facts, flip: Flip) -> None:
    at = AXES[flip.axis]
    now = call(flip.axis, *at(wanted, seen, flip.now))
    beyond = call(flip.axis, *at(wanted, seen, flip.at))
    before = just_before(flip)
    assert call(flip.axis, *at(wanted, seen, before)) == now, f"{flip.axis}: not the call of now just before {flip.at}"
    assert beyond != now, f"{flip.axis}: still the call of now at {flip.at}"
    first, _, recipe = beyond.rpartition(" / ")
    assert recipe in flip.then, (flip.then, beyond)
    if recipe == now.rpartition(" / ")[2] and first != "":
        assert first.removesuffix(" first") in flip.then


SITUATIONS: dict[str, World] = {
    "room": (job(), worlds.world()),
    "scarce": (job(), worlds.world(device=worlds.card(640_000_000))),
    "two cards": (job(), worlds.world(device=worlds.card(count=2))),
    "much data": (job(), worlds.world(rows=200_000)),
    "tenants and money": (job(variants=4, budget={"usd": 0.2}), worlds.world()),
    "laptop": (job(), worlds.world(device=builders.laptop())),
    "none": (job(), worlds.world(device=worlds.card(560_000_000))),
    "forced": (job(method="qlora"), worlds.world()),
    "knowledge": (job(goal="knowledge", retrieval="possible"), worlds.world()),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_flip_is_true(name: str) -> None:
    wanted, seen = SITUATIONS[name]
    plan = worlds.plan_of(wanted, seen)
    assert plan.flips
    for flip in plan.flips:
        check(wanted, seen, flip)


@settings(max_examples=3, deadline=None)
@given(
    st.sampled_from(["instruction", "knowledge", "task"]),
    st.sampled_from([240, 20_000, 200_000]),
    st.integers(*worlds.SCARCE),
    st.sampled_from([None, "full", "lora"]),
)
def test_every_flip_of_any_job_is_true(goal: str, rows: int, size: int, method: str | None) -> None:
    wanted, seen = job(goal=goal, method=method), worlds.world(rows=rows, device=worlds.card(size))
    flips = worlds.plan_of(wanted, seen).flips
    assert {flip.axis for flip in flips} <= set(AXES)
    for flip in flips:
        check(wanted, seen, flip)


def test_the_axes_are_those_of_the_issue() -> None:
    found = {f.axis for name in SITUATIONS for f in worlds.plan_of(*SITUATIONS[name]).flips}
    assert found == set(AXES)


ENDS = {  # the far ends that are looked at, as factors of now
    "device.memory_bytes": (1e-3, 1e3),
    "data.supervised_tokens": (1e-3, 1e6),
    "forgetting.budget_nats": (1e-2, 1e2),
}


@pytest.mark.parametrize("name", ["room", "laptop", "much data", "knowledge"])
def test_an_axis_without_a_flip_ends_in_the_same_call(name: str) -> None:
    wanted, seen = SITUATIONS[name]
    flips = worlds.plan_of(wanted, seen).flips
    now = {
        "device.memory_bytes": (seen.device.memory_bytes or 0) / GB,
        "data.supervised_tokens": float(seen.data.supervised_tokens),
        "forgetting.budget_nats": wanted.forgetting.budget_nats,
    }
    for axis, factors in ENDS.items():
        here = call(axis, *AXES[axis](wanted, seen, now[axis]))
        for end in (now[axis] * factor for factor in factors):
            told = [f for f in flips if f.axis == axis and (f.at < f.now) == (end < now[axis])]
            assert bool(told) == (call(axis, *AXES[axis](wanted, seen, end)) != here), (axis, end)


def test_the_sentence_says_the_value_and_its_unit() -> None:
    for flip in worlds.plan_of(*SITUATIONS["tenants and money"]).flips:
        assert flip.unit and flip.if_ and " instead of " in flip.then and flip.at != flip.now


def test_the_learning_rate_that_flips_is_that_of_the_call() -> None:
    much = facts(llama3_8b(), data_facts(20_000_000, 512), a100(memory_bytes=48 * GB))  # an adapter against capacity
    for wanted, seen in (SITUATIONS["room"], (job(), much)):
        plan = worlds.plan_of(wanted, seen)
        (flip,) = [f for f in plan.flips if f.axis == "forgetting.budget_nats"]
        assert plan.verdict.config and flip.then.endswith(f"instead of {plan.verdict.config.learning_rate:g}")


def test_tenants_flip_where_their_runs_no_longer_fit_the_budget() -> None:
    wanted, seen = SITUATIONS["tenants and money"]
    plan = worlds.plan_of(wanted, seen)
    (flip,) = [f for f in plan.flips if f.axis == "variants"]
    cost = plan.estimate(plan.verdict.candidate or "").money.train_usd or 0
    assert (flip.at - 1) * cost <= 0.2 < flip.at * cost


def test_an_unsure_job_flips_as_the_goal_that_its_diagnosis_gave() -> None:
    unsure = job(goal="unsure")
    seen = worlds.world().model_copy(update={"diagnosis": builders.diagnosis("knowledge")})
    assert with_known_goal(unsure, seen).goal == "knowledge"
    assert {f.axis for f in worlds.plan_of(unsure, seen).flips} == {
        f.axis for f in worlds.plan_of(job(goal="knowledge"), seen).flips
    }
