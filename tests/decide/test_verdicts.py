"""From outcomes to the call: the first preferred recipe that runs, and a rule for every other candidate."""

import pytest

from rankwise.decide.preference import takeable
from rankwise.decide.rulebook import rules
from rankwise.decide.verdicts import decide, first_that_runs, soft, winner_of
from rankwise.records import Facts, Job
from tests import builders
from tests.builders import job
from tests.decide import worlds

SCARCE = worlds.world(device=worlds.card(610_000_000))
CALLS: dict[str, tuple[Job, Facts]] = {
    "room": (job(), worlds.world()),
    "two cards": (job(), worlds.world(device=worlds.card(count=2))),
    "laptop": (job(), worlds.world(device=builders.laptop())),
    "scarce": (job(), SCARCE),
    "none": (job(), worlds.world(device=worlds.card(560_000_000))),
    "much data": (job(), worlds.world(rows=200_000)),
    "forced qlora": (job(method="qlora"), worlds.world()),
    "forced prompt": (job(method="prompt"), worlds.world()),
    "tenants": (job(variants=4), worlds.world()),
    "too dear": (job(budget={"usd": 1e-6}), worlds.world()),
}
every_call = pytest.mark.parametrize("name", CALLS)


@every_call
def test_every_candidate_is_the_call_or_rejected_once_by_a_rule(name: str) -> None:
    decision = worlds.called(*CALLS[name])
    lost = [r.method for r in decision.rejected]
    priced = {p.id for p in decision.priced}
    assert len(lost) == len(set(lost))
    assert priced - set(lost) == ({decision.winner.id} if decision.winner else set())
    assert all(r.text and (r.rule == "preference" or r.rule in rules()) for r in decision.rejected)
    assert all(r.evidence or not rules()[r.rule].evidence for r in decision.rejected if r.rule != "preference")
    assert all(r.number for r in decision.rejected if r.rule not in ("preference", "discouraged"))


@every_call
def test_the_winner_is_of_the_first_preferred_recipe_that_runs(name: str) -> None:
    wanted, seen = CALLS[name]
    outcomes = worlds.climbed(wanted, seen)
    running = [o.recipe.name for o in outcomes if o.best is not None]
    order = [r.name for r in takeable(wanted, seen) if r.name in running]
    winner = winner_of(wanted, seen, outcomes)
    assert (winner.candidate.recipe if winner else None) == (order[0] if order else None)


@every_call
def test_the_short_way_to_the_winner_finds_the_same_recipe(name: str) -> None:
    wanted, seen = CALLS[name]
    short = first_that_runs(wanted, seen, worlds.real_prices)
    assert (short.candidate.recipe if short else "none") == worlds.recipe_called(wanted, seen)


@every_call
def test_the_runner_up_runs_and_is_of_another_recipe_where_one_runs(name: str) -> None:
    wanted, seen = CALLS[name]
    decision = worlds.called(wanted, seen)
    if decision.runner_up is None:
        running = {o.recipe.name for o in decision.outcomes if o.best is not None}
        assert decision.winner is None or running == {decision.winner.candidate.recipe}
        return
    assert decision.winner and decision.runner_up is not decision.winner
    assert decision.runner_up.estimate.memory.fits
    hard = {name for name, rule in rules().items() if rule.kind == "hard"}
    lost = {r.method: r.rule for r in decision.rejected}
    assert lost[decision.runner_up.id] not in hard


def test_hard_rules_are_told_before_soft_ones_and_soft_ones_before_preference() -> None:
    lost = {r.method: r.rule for r in worlds.plan_of(*CALLS["none"]).rejected}
    assert lost["full-bf16"] == lost["dora-r8-checkpointing-b1"] == "memory_fits"
    lost = {r.method: r.rule for r in worlds.usual().rejected}
    assert (lost["qlora-r8"], lost["full"], lost["dora-r8"]) == (
        "quantisation_needed",
        "adapter_suffices",
        "variant_needs_sweep",
    )
    lost = {r.method: r.rule for r in worlds.plan_of(*CALLS["much data"]).rejected}
    assert lost["full-8bit"] == "preference" and lost["lora-r64"] == "capacity_suffices"


def test_a_saving_of_memory_that_is_not_short_is_rejected_with_what_is_there() -> None:
    lost = {r.method: r for r in worlds.plan_of(*CALLS["two cards"]).rejected}
    assert lost["lora-r8-checkpointing"].rule == "recomputation_needed"
    assert lost["lora-r8-fsdp"].rule == "sharding_needed"
    assert "2.00 GB there" in (lost["lora-r8-fsdp"].number or "")


def test_several_tenants_are_told_what_copies_take() -> None:
    lost = {r.method: r for r in worlds.plan_of(*CALLS["tenants"]).rejected}
    assert "4 variants take" in (lost["full"].number or "")
    assert "variants" not in ({r.method: r for r in worlds.usual().rejected}["full"].number or "")


def test_soft_rules_in_their_order() -> None:
    wanted = job(method={"name": "prompt"})
    found = soft(wanted, worlds.world(), worlds.priced("prompt", wanted))
    assert found and found.rule == "discouraged"
    assert soft(job(), worlds.world(), worlds.priced("lora")) is None
    assert decide(job(), worlds.world(), []).winner is None
