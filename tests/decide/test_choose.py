"""The call: golden plans, what never changes it, what more of anything never spoils, and the shape of every plan."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.decide.choose import choose, require_sound_method, with_known_goal
from rankwise.decide.preference import precision_trap, takeable
from rankwise.decide.rulebook import evidence, rules
from rankwise.errors import JobError
from rankwise.jobfile import read_job
from rankwise.records import Facts, Job, Plan
from tests import builders
from tests.builders import GB, a100, data_facts, diagnosis, facts, job, laptop, llama3_8b
from tests.decide import worlds

GOLDEN = Path(__file__).parents[1] / "golden" / "plans"

SITUATIONS: dict[str, tuple[Job, Facts, str]] = {
    "style-laptop": (job(), facts(), "lora"),
    "knowledge-laptop": (job(goal="knowledge", retrieval="possible"), facts(), "lora"),
    "small-memory": (job(), facts(llama3_8b(), data_facts(2000, 512), a100(memory_bytes=18 * GB)), "qlora"),
    "tiny-memory": (job(), facts(llama3_8b(), device=laptop(memory_bytes=2 * GB)), "none"),
    "huge-data": (job(), facts(data=data_facts(4_000_000)), "full"),
    "five-variants-a100": (job(variants=5), facts(llama3_8b(), data_facts(20_000, 512), a100()), "lora"),
    "forced-full": (job(method="full"), facts(), "full"),
    "huge-data-small-memory": (
        job(),
        facts(llama3_8b(), data_facts(20_000_000, 512), a100(memory_bytes=48 * GB)),
        "full",  # bf16 weights, rounded stochastically, 8-bit states and no gradients: no adapter holds that much
    ),
    "code-a100": (
        job(goal="task", format=None, data={"train": "/clinic/train.jsonl", "domain": "code"}),
        facts(llama3_8b(), data_facts(20_000, 512), a100()),
        "lora",
    ),
}
every_situation = pytest.mark.parametrize("name", SITUATIONS)


def plan_of(name: str) -> Plan:
    return worlds.plan_of(*SITUATIONS[name][:2])


# -- golden plans ----------------------------------------------------------------------------------


@every_situation
def test_the_plan_is_the_one_on_file(name: str) -> None:
    content = plan_of(name).contract()
    for key in ("job", "facts", "rankwise_version", "job_hash", "base_hash", "data_hash", "hardware_hash"):
        del content[key]
    content["candidates"] = [
        {"id": c["id"], "peak_device": c["memory"]["peak_device"], "train_seconds": c["time"]["train_seconds"]}
        for c in content["candidates"]
    ]
    for told in (*content["reasons"], *content["rejected"], *content["rungs"]):
        told["evidence"] = [line.split(":")[0] for line in told["evidence"]]  # the texts stand in evidence.toml
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("RANKWISE_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "RANKWISE_UPDATE_GOLDEN=1 rewrites it, then read the difference"


def test_no_golden_plan_is_left_over() -> None:
    assert {p.stem for p in GOLDEN.glob("*.json")} == set(SITUATIONS)


@every_situation
def test_the_verdict_is_the_one_that_the_field_would_expect(name: str) -> None:
    assert plan_of(name).verdict.method == SITUATIONS[name][2]


# -- the shape of every plan -----------------------------------------------------------------------


@every_situation
def test_every_candidate_is_the_verdict_or_rejected_by_a_rule_of_the_file(name: str) -> None:
    plan = plan_of(name)
    lost = [r.method for r in plan.rejected]
    priced = {str(c.id) for c in plan.candidates}
    assert len(lost) == len(set(lost)) and len(priced) == len(plan.candidates)
    assert priced - set(lost) == set(filter(None, [plan.verdict.candidate]))
    for r in plan.rejected:
        assert r.text and (r.rule == "preference" or r.rule in rules())
        assert r.number or r.rule in ("preference", "discouraged")
        assert [line.split(":")[0] for line in r.evidence] == list(
            rules()[r.rule].evidence if r.rule in rules() else ()
        )


@every_situation
def test_reasons_and_rungs_cite_their_rules(name: str) -> None:
    plan = plan_of(name)
    for told in (*plan.reasons, *plan.rungs):
        assert told.rule == "forced" or told.rule in rules()
        assert all(line.split(":")[0] in evidence() for line in told.evidence)
    order = ["need", "capacity", "feasibility", "cost", "risk", "configuration"]
    steps = [order.index(rules()[r.rule].step) for r in plan.reasons if r.rule in rules()]
    assert not plan.reasons or steps[0] == 0
    assert [s for s in steps if s < 3] == sorted(s for s in steps if s < 3)


@every_situation
def test_the_verdict_fits_and_carries_its_configuration(name: str) -> None:
    plan = plan_of(name)
    chosen = plan.chosen()
    if plan.verdict.method == "none":
        assert (chosen, plan.verdict.config, plan.runner_up, plan.reasons) == (None, None, None, ())
        return
    assert chosen and chosen.memory.fits and chosen.method == plan.verdict.method
    assert plan.verdict.config and plan.verdict.config.method == plan.verdict.method
    assert plan.job_hash == plan.job.content_hash() and plan.hardware_hash == plan.facts.device.identity_hash
    assert set(plan.priors) == {c.id for c in plan.candidates}


@every_situation
def test_a_plan_survives_its_file(name: str) -> None:
    plan = plan_of(name)
    again = Plan.model_validate_json(plan.model_dump_json(by_alias=True))
    assert again == plan and again.content_hash() == plan.content_hash()


@every_situation
def test_reasons_do_not_contradict_each_other(name: str) -> None:
    plan = plan_of(name)
    told = {r.rule for r in plan.reasons}
    cannot = any("cannot hold" in r.text for r in plan.reasons)
    assert not (cannot and "adapter_suffices" in told)
    assert cannot == any("against the rule capacity_suffices" in w for w in plan.warnings)


def test_confidence_rests_on_what_was_measured() -> None:
    read = worlds.world().model_copy(update={"diagnosis": diagnosis()})
    assert worlds.plan_of(job(), read).verdict.confidence == "high"
    assert worlds.usual().verdict.confidence == "medium"
    assert worlds.plan_of(job(data={"examples": 240}), read).verdict.confidence == "low"
    assert worlds.plan_of(job(goal="unsure"), worlds.world()).verdict.confidence == "low"


@pytest.mark.parametrize(
    ("conclusion", "goal"),
    [
        ("style", "instruction"),
        ("prompting", "instruction"),
        ("knowledge", "knowledge"),
        ("both", "knowledge"),
        ("cannot tell", "unsure"),
    ],
)
def test_an_unsure_job_takes_the_goal_of_its_diagnosis(conclusion: str, goal: str) -> None:
    seen = worlds.world().model_copy(update={"diagnosis": diagnosis(conclusion)})
    assert with_known_goal(job(goal="unsure"), seen).goal == goal
    assert with_known_goal(job(goal="task"), seen).goal == "task"
    plan = worlds.plan_of(job(goal="unsure"), seen)
    assert plan.job.goal == "unsure"
    assert plan.verdict.config == worlds.plan_of(job(goal=goal), seen).verdict.config


# -- what must hold for any job --------------------------------------------------------------------

sizes = st.integers(*worlds.SCARCE)
rows = st.sampled_from([240, 20_000, 200_000])
goals = st.sampled_from(["instruction", "knowledge", "task", "unsure"])
counts = st.sampled_from([1, 2])
few = settings(max_examples=12, deadline=None)  # the first of each kind is traced


def place(wanted: Job, seen: Facts) -> tuple[int, float | None]:
    """(place of the call's recipe in the order of preference, USD of its run); none is behind all."""
    winner = worlds.called(wanted, seen).winner
    names = [recipe.name for recipe in takeable(wanted, seen)]
    if winner is None:
        return len(names), None
    return names.index(winner.candidate.recipe), winner.estimate.money.train_usd


@few
@given(rows, sizes, st.integers(0, GB), counts)
def test_more_memory_never_gives_a_less_preferred_call(n: int, memory: int, more: int, count: int) -> None:
    less, much = (place(job(), worlds.world(rows=n, device=worlds.card(m, count))) for m in (memory, memory + more))
    assert much[0] <= less[0]


@few
@given(
    rows,
    st.sampled_from([640_000_000, 2 * GB]),
    st.sampled_from(["usd", "hours"]),
    st.floats(0.001, 3),
    st.floats(0, 3),
    st.sampled_from([1, 3]),
)
def test_more_budget_never_gives_none_nor_a_worse_or_dearer_call(
    n: int, memory: int, key: str, budget: float, more: float, tenants: int
) -> None:
    seen = worlds.world(rows=n, device=worlds.card(memory))
    less, much = (place(job(budget={key: b}, variants=tenants), seen) for b in (budget, budget + more))
    assert much[0] <= less[0]
    if much[0] == less[0] and less[1] is not None:
        assert (much[1] or 0) <= less[1] or (key == "usd" and (much[1] or 0) * tenants <= budget + more)


@few
@given(goals, rows, sizes, st.sampled_from([None, "full", "lora", "qlora"]))
def test_the_order_of_keys_does_not_change_the_plan(goal: str, n: int, memory: int, method: str | None) -> None:
    wanted, seen = job(goal=goal, method=method), worlds.world(rows=n, device=worlds.card(memory))

    def turned(value: Any) -> Any:
        return {k: turned(v) for k, v in reversed(value.items())} if isinstance(value, dict) else value

    other_job = Job.model_validate(turned(wanted.model_dump(mode="json")))
    other_seen = Facts.model_validate(turned(seen.model_dump(mode="json")))
    assert worlds.called(other_job, other_seen) == worlds.called(wanted, seen)


JOB = """
goal: instruction
model: embedded
data: {examples: 240, tokens_per_example: 91}
hardware: {gpu: A100-80GB, count: 1}
budget: {hours: 2, usd: 512}
variants: 3
"""
OPTIONS = {
    "variants": 3,
    "budget.usd": 512.0,
    "budget.hours": 2.0,
    "hardware.count": 1,
    "hardware.gpu": "A100-80GB",
    "data.tokens_per_example": 91,
    "data.examples": 240,
    "model": "embedded",
    "goal": "instruction",
}


def test_a_file_and_options_and_whole_or_broken_numbers_are_the_same_job(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "other.yaml").write_text(JOB.replace("hours: 2,", "hours: 2.0,").replace("usd: 512", "usd: 512.00"))
    written, other = (read_job(tmp_path / name, {"name": "x"}, ["lora"]) for name in ("job.yaml", "other.yaml"))
    said = read_job(None, OPTIONS | {"name": "x"}, ["lora"])
    assert written == other == said and written.content_hash() == said.content_hash()
    seen = worlds.world()
    assert worlds.called(written, seen) == worlds.called(said, seen)


@settings(max_examples=25, deadline=None)
@given(
    goals,
    st.sampled_from([1, 240, 20_000, 200_000]),
    sizes,
    counts,
    st.sampled_from([None, "code"]),
    st.sampled_from([1, 4]),
    st.sampled_from(["embedded", "vllm"]),
    st.sampled_from([None, 1e-5, 1e-3]),
)
def test_what_is_not_recommended_is_never_called_unless_forced(
    goal: str, n: int, memory: int, count: int, domain: str | None, tenants: int, engine: str, rate: float | None
) -> None:
    wanted = job(
        goal=goal,
        data={"examples": 9, "domain": domain},
        variants=tenants,
        serving={"engine": engine},
        train={"learning_rate": rate},
    )
    seen = worlds.world(rows=n, device=worlds.card(memory, count))
    winner = worlds.called(wanted, seen).winner
    if winner is not None:
        assert winner.recipe.kind == "usual"
        assert precision_trap(wanted, seen, winner.recipe) is None
        assert winner.candidate.config.target_modules in (None, "all-linear")


def test_a_plan_is_the_same_each_time() -> None:
    first, again = (choose(job(), worlds.world(), worlds.Counted()) for _ in range(2))
    assert first == again == worlds.usual()


# -- forcing ---------------------------------------------------------------------------------------


def test_a_forced_method_overrides_preference_without_hiding_the_others() -> None:
    plan = plan_of("forced-full")
    assert plan.verdict.method == "full" and plan.reasons[0].rule == "forced"
    assert {r.rule for r in plan.rejected if r.method == "lora-r8"} <= {"preference"}


def test_a_forced_method_does_not_override_memory() -> None:
    plan = worlds.plan_of(job(method="lora"), facts(llama3_8b(), device=a100(memory_bytes=10 * GB)))
    assert plan.verdict.method == "none"
    assert {r.rule for r in plan.rejected if r.method.startswith("lora")} <= {"memory_fits", "states_fit"}


@pytest.mark.parametrize(
    ("wanted", "device", "rules_broken"),
    [
        (job(budget={"hours": 1e-7}), worlds.card(), {"within_hours"}),
        (job(budget={"usd": 1e-7}), worlds.card(), {"within_usd"}),
        (job(), worlds.card(disk_free_bytes=1000), {"disk_fits"}),
        (job(), worlds.card(1000), {"memory_fits", "states_fit"}),
    ],
)
@pytest.mark.parametrize("method", [None, "full", "lora", "qlora"])
def test_each_hard_rule_alone_can_stop_everything(
    wanted: Job, device: Any, rules_broken: set[str], method: str | None
) -> None:
    wanted = Job.model_validate(wanted.model_dump(mode="json") | {"method": method})
    decision = worlds.called(wanted, worlds.world(device=device))
    assert decision.winner is None and {r.rule for r in decision.rejected} <= rules_broken | {"works_together"}
    assert all(r.would_flip_if for r in decision.rejected if r.rule in rules_broken)


# -- what the job overrides is said ----------------------------------------------------------------

OVERRIDES = {
    "learning_rate": 0.005,
    "max_steps": 3,
    "num_train_epochs": 7.0,
    "seed": 4,
    "on_long": "truncate",
    "optim": "sgd",
    "per_device_train_batch_size": 2,
    "bf16": False,
    "gradient_checkpointing": True,
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_an_override_of_training_is_said_with_both_values(name: str) -> None:
    plan = worlds.plan_of(job(train={name: OVERRIDES[name]}), worlds.world())
    told = [w for w in plan.warnings if w.startswith(f"train.{name}: {OVERRIDES[name]} is the job's, the plan would")]
    assert len(told) == 1


def test_an_override_of_the_method_is_said_with_both_values() -> None:
    plan = worlds.plan_of(job(method={"name": "lora", "r": 4, "lora_dropout": 0.1}), worlds.world())
    assert "method.r: 4 is the job's, the plan would take 8" in plan.warnings
    assert "method.lora_dropout: 0.1 is the job's, the plan would take 0.0" in plan.warnings


def test_what_agrees_with_the_plan_is_no_override() -> None:
    same = worlds.usual().verdict.config
    assert same is not None
    plan = worlds.plan_of(
        job(train={"learning_rate": same.learning_rate, "seed": same.seed, "bf16": True}), worlds.world()
    )
    assert not [w for w in plan.warnings if "is the job's" in w]


# -- targets ---------------------------------------------------------------------------------------


def test_unknown_targets_and_ranks_beyond_the_matrix_are_refused() -> None:
    seen = facts()
    with pytest.raises(JobError, match="no linear layer"):
        builders.plan(job(method={"name": "lora", "target_modules": ["c_attn"]}), seen)
    with pytest.raises(JobError, match=r"method\.r is 193") as caught:
        require_sound_method(job(method={"name": "lora", "r": 193}), seen)
    assert caught.value.expected == "a rank of 1 to 192"
    require_sound_method(job(method={"name": "lora", "r": 193, "target_modules": ["q_proj"]}), seen)
    require_sound_method(job(method={"name": "lora", "r": 192}), seen)
