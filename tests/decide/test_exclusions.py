"""Hard rules turn exactly where their number says, and a forced method does not override them."""

from typing import Any

import pytest

from rankwise.decide.configure import Rung
from rankwise.decide.exclusions import HARD, engine_serves, first_broken, states_fit, unkept, works_together
from rankwise.decide.ladder import candidate_of
from rankwise.decide.recipes import BY_NAME, RECIPES
from rankwise.decide.rulebook import rules
from rankwise.records import Job
from tests import builders
from tests.builders import job
from tests.decide import worlds

WORLD = worlds.world()
LORA = worlds.priced("lora", facts=WORLD)


def hours() -> float:
    return (LORA.estimate.time.train_seconds or 0) / 3600


def usd(tenants: int = 1) -> float:
    return (LORA.estimate.money.train_usd or 0) * tenants


def with_disk(free: int) -> Any:
    return WORLD.model_copy(update={"device": worlds.card(disk_free_bytes=free)})


def broken_by(wanted: Job, facts: Any = WORLD) -> list[str]:
    return [found.rule for rule in HARD if (found := rule(wanted, facts, LORA))]


def test_everything_runs_without_limits() -> None:
    assert broken_by(job()) == [] and first_broken(job(), WORLD, LORA) is None


@pytest.mark.parametrize(("factor", "broken"), [(1.001, []), (0.999, ["within_hours"])])
def test_hours_turn_at_the_predicted_hours_of_one_run(factor: float, broken: list[str]) -> None:
    assert broken_by(job(budget={"hours": hours() * factor})) == broken


@pytest.mark.parametrize(("factor", "broken"), [(1.001, []), (0.999, ["within_usd"])])
@pytest.mark.parametrize("tenants", [1, 7])
def test_usd_turn_at_one_run_for_each_tenant(factor: float, broken: list[str], tenants: int) -> None:
    assert broken_by(job(budget={"usd": usd(tenants) * factor}, variants=tenants)) == broken


@pytest.mark.parametrize(("spare", "broken"), [(0, []), (-1, ["disk_fits"])])
def test_the_disk_turns_at_what_the_run_holds(spare: int, broken: list[str]) -> None:
    assert broken_by(job(), with_disk(LORA.estimate.storage.run_bytes + spare)) == broken


@pytest.mark.parametrize(("spare", "fits"), [(1, True), (-1, False)])
def test_memory_turns_at_the_upper_end_of_the_peak(spare: int, fits: bool) -> None:
    facts = worlds.world(device=worlds.card(int(LORA.estimate.memory.interval[1]) + spare))
    found = first_broken(job(), facts, worlds.priced("lora", facts=facts))
    assert (found is None) == fits and (fits or (found and found.rule == "memory_fits"))


def test_a_broken_rule_says_its_number_what_would_help_and_its_evidence() -> None:
    limits = job(budget={"hours": hours() / 2, "usd": usd() / 2})
    scarce = worlds.world(device=worlds.card(600_000_000, disk_free_bytes=10))
    lost = worlds.priced("lora", limits, scarce)
    found = [rule(limits, scarce, lost) for rule in HARD]
    assert [f and f.rule for f in found] == ["memory_fits", "within_hours", "within_usd", "disk_fits"]
    for rejection in found:
        assert rejection and rejection.method == lost.id and rejection.number and rejection.would_flip_if
        cited = rules()[rejection.rule].evidence
        assert [line.split(":")[0] for line in rejection.evidence] == list(cited)
        assert rules()[rejection.rule].kind == "hard"


def test_unknown_time_money_and_disk_break_nothing() -> None:
    facts = worlds.world(device=worlds.card(matmul_flops={}, price=None))
    unknown = worlds.priced("lora", facts=facts)
    assert first_broken(job(budget={"hours": 1e-9, "usd": 1e-9}), facts, unknown) is None


# -- before anything is priced ---------------------------------------------------------------------


def test_states_alone_rule_out_what_cannot_fit() -> None:
    facts = builders.facts(builders.llama3_8b(), device=builders.a100())
    found = {name: states_fit(facts, candidate_of(job(), facts, BY_NAME[name], Rung())) for name in ("full", "lora")}
    assert found["lora"] is None
    assert found["full"] is not None and found["full"].rule == "states_fit"
    assert found["full"].number == ("at least 128.5 GB of weights, gradients and optimizer states, 85.9 GB there")


def test_prefixes_refuse_recomputation() -> None:
    plain, again = (
        candidate_of(job(), WORLD, BY_NAME["prefix"], Rung(gradient_checkpointing=c)) for c in (False, True)
    )
    assert works_together(job(), WORLD, plain) is None
    found = works_together(job(), WORLD, again)
    assert found and found.rule == "works_together" and "peft" in (found.number or "")


def test_an_optimizer_in_the_backward_pass_refuses_accumulation() -> None:
    one, two = (
        candidate_of(job(train={"gradient_accumulation_steps": n}), WORLD, BY_NAME["full-backward"], Rung())
        for n in (1, 2)
    )
    assert works_together(job(), WORLD, one) is None
    assert (works_together(job(), WORLD, two) or pytest.fail("not refused")).rule == "works_together"


@pytest.mark.parametrize("name", [r.name for r in RECIPES])
def test_only_what_is_no_longer_kept_is_refused_for_its_package(name: str) -> None:
    recipe, found = BY_NAME[name], unkept(BY_NAME[name])
    assert (found is not None) == (recipe.kind == "unkept")
    assert found is None or (recipe.package in (found.number or "") and found.rule == "kept_library")


SERVED = {  # method: with one tenant, with several
    "full": (True, True),
    "lora": (True, True),
    "qlora": (True, True),
    "lora-8bit": (True, True),
    "rslora": (True, True),
    "pissa": (True, True),
    "dora": (True, False),
    "ia3": (True, False),
    "bottleneck": (False, False),
    "prefix": (False, False),
    "prompt": (False, False),
    "p_tuning": (False, False),
}


@pytest.mark.parametrize("method", SERVED)
@pytest.mark.parametrize("tenants", [1, 2])
def test_what_vllm_serves(method: str, tenants: int) -> None:
    wanted = job(serving={"engine": "vllm"}, variants=tenants)
    candidate = candidate_of(wanted, WORLD, BY_NAME[method], Rung())
    assert (engine_serves(wanted, candidate) is None) == SERVED[method][tenants - 1]
    assert engine_serves(job(variants=tenants), candidate) is None  # our own engine loads them all


def test_every_method_has_an_answer_about_vllm() -> None:
    assert set(SERVED) == {r.method for r in RECIPES}


def test_a_job_for_vllm_with_tenants_never_gets_what_it_cannot_load() -> None:
    wanted = job(serving={"engine": "vllm"}, variants=3, method="dora")
    plan = builders.plan(wanted, WORLD)
    assert plan.verdict.method == "none"
    assert {r.rule for r in plan.rejected if r.method.startswith("dora")} == {"engine_serves"}
