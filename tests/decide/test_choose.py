"""The call: golden plans, what never changes it, and that it says why, what it rejected and what would flip it."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.decide.choose import decide, require_known_targets
from rankwise.decide.rules import HARD, RULE_EVIDENCE, SOFT, cite, evidence, first_broken
from rankwise.errors import JobError
from rankwise.methods import METHODS
from rankwise.records import Facts, Job, Plan
from tests import builders
from tests.builders import GB, a100, data_facts, facts, job, laptop, llama3_8b

GOLDEN = Path(__file__).parents[1] / "golden" / "plans"

SITUATIONS: dict[str, tuple[Job, Facts, str]] = {
    "style-laptop": (job(), facts(), "lora"),
    "knowledge-laptop": (job(goal="knowledge", retrieval="possible"), facts(), "lora"),
    "small-memory": (job(), facts(llama3_8b(), data_facts(2000, 512), a100(memory_bytes=24 * GB)), "qlora"),
    "tiny-memory": (job(), facts(llama3_8b(), device=laptop(memory_bytes=2 * GB)), "none"),
    "huge-data": (job(), facts(data=data_facts(2_000_000)), "full"),
    "five-variants-a100": (job(variants=5), facts(llama3_8b(), data_facts(20_000, 512), a100()), "lora"),
    "forced-full": (job(method="full"), facts(), "full"),
    "huge-data-small-memory": (
        job(),
        facts(llama3_8b(), data_facts(20_000_000, 512), a100(memory_bytes=48 * GB)),
        "qlora",
    ),
}
every_situation = pytest.mark.parametrize("name", SITUATIONS)


def plan_of(name: str) -> Plan:
    return builders.plan(*SITUATIONS[name][:2])


def verdict(wanted: Job, seen: Facts) -> str:
    winner = decide(wanted, seen, builders.priced(wanted, seen))[0]
    return winner.candidate.id if winner else "none"


# -- golden plans --------------------------------------------------------------------------------


@every_situation
def test_the_plan_is_the_one_on_file(name: str) -> None:
    content = plan_of(name).contract()
    for key in ("job", "facts", "rankwise_version", "job_hash", "base_hash", "data_hash", "hardware_hash"):
        del content[key]
    content["candidates"] = [
        {"id": c["id"], "peak_device": c["memory"]["peak_device"], "train_seconds": c["time"]["train_seconds"]}
        for c in content["candidates"]
    ]
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
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


# -- the shape of every plan ---------------------------------------------------------------------


@every_situation
def test_every_candidate_is_the_verdict_or_rejected_by_a_named_rule(name: str) -> None:
    plan = plan_of(name)
    rules = {rule.__name__ for rule in (*HARD, *SOFT)} | {"preference"}
    losers = [r.method for r in plan.rejected]
    assert sorted([*losers, *filter(None, [plan.verdict.candidate])]) == sorted(str(c.id) for c in plan.candidates)
    assert all(r.rule in rules and r.text for r in plan.rejected)
    assert all(r.number or r.rule == "preference" for r in plan.rejected)


@every_situation
def test_the_runner_up_could_run(name: str) -> None:
    plan = plan_of(name)
    hard = {rule.__name__ for rule in HARD}
    broken = {r.method: r.rule for r in plan.rejected}
    if plan.runner_up is None:
        assert all(rule in hard for rule in broken.values())
    else:
        assert broken[plan.runner_up] not in hard


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


@every_situation
def test_a_plan_survives_its_file(name: str) -> None:
    plan = plan_of(name)
    again = Plan.model_validate_json(plan.model_dump_json(by_alias=True))
    assert again == plan and again.content_hash() == plan.content_hash()


@every_situation
def test_reasons_do_not_contradict_the_rules(name: str) -> None:
    wanted, seen, _ = SITUATIONS[name]
    plan = plan_of(name)
    all_priced = builders.priced(wanted, seen)
    winner = next((p for p in all_priced if p.candidate.id == plan.verdict.candidate), None)
    broken = first_broken(SOFT, wanted, seen, winner, all_priced) if winner else None
    told = [w for w in plan.warnings if "against the rule" in w]
    assert len(told) == (broken is not None)
    assert all(broken and broken.rule in w and str(broken.number) in w for w in told)
    holds = [r.text for r in plan.reasons if r.rule == "capacity_suffices"]
    assert all(("cannot hold" in text) == bool(broken and broken.rule == "capacity_suffices") for text in holds)


def test_an_adapter_that_is_too_small_is_taken_only_where_nothing_else_runs_and_says_so() -> None:
    plan = plan_of("huge-data-small-memory")
    assert {r.rule for r in plan.rejected if r.method.startswith("full")} == {"memory_fits"}
    assert any("is the best that runs here against the rule capacity_suffices" in w for w in plan.warnings)
    assert any("cannot hold what the data teaches" in r.text for r in plan.reasons)


def test_rungs_below_training_do_not_hide_the_verdict() -> None:
    plan = plan_of("knowledge-laptop")
    assert [t.split(":")[0] for t in plan.verdict.first_try] == ["retrieval", "prompting"]
    assert plan.verdict.config is not None
    assert plan_of("style-laptop").verdict.first_try == ()
    assert [t.split(":")[0] for t in builders.plan(job(goal="knowledge")).verdict.first_try] == ["prompting"]


# -- what must hold for any job ------------------------------------------------------------------

sizes = st.integers(1, 200).map(lambda n: n * GB)
rows = st.sampled_from([1, 10, 240, 20_000, 2_000_000])
goals = st.sampled_from(["instruction", "knowledge", "task", "unsure"])
models = st.sampled_from([builders.smollm2(), llama3_8b()])
forced = st.sampled_from([None, "full", "lora", "qlora"])


@settings(max_examples=15, deadline=None)  # the first of each kind is traced, which takes seconds
@given(models, rows, sizes, sizes)
def test_more_memory_never_makes_a_runnable_candidate_unrunnable(model: Any, n: int, memory: int, more: int) -> None:
    ran: set[str] = set()
    for size in (memory, memory + more):
        world = facts(model, data_facts(n), a100(memory_bytes=size))
        runs = {p.candidate.id for p in decide(job(), world, builders.priced(job(), world))[1]}
        assert ran <= runs
        ran = runs


@settings(max_examples=15, deadline=None)
@given(models, rows, forced, st.floats(0.001, 1000), st.floats(0, 1000))
def test_more_hours_never_turn_a_verdict_into_none(
    model: Any, n: int, method: str | None, hours: float, more: float
) -> None:
    world = facts(model, data_facts(n), a100())
    before, after = (verdict(job(budget={"hours": h}, method=method), world) for h in (hours, hours + more))
    assert before == "none" or after != "none"


@settings(max_examples=15, deadline=None)
@given(models, rows, st.floats(0.01, 1000), st.floats(0, 1000))
def test_more_money_never_turns_a_verdict_into_none(model: Any, n: int, usd: float, more: float) -> None:
    world = facts(model, data_facts(n), a100())
    before, after = (verdict(job(budget={"usd": u}), world) for u in (usd, usd + more))
    assert before == "none" or after != "none"


@settings(max_examples=10, deadline=None)
@given(goals, rows, sizes, forced)
def test_the_order_of_keys_does_not_change_the_plan(goal: str, n: int, memory: int, method: str | None) -> None:
    wanted, world = job(goal=goal, method=method), facts(data=data_facts(n), device=laptop(memory_bytes=memory))

    def turned(value: Any) -> Any:
        return {k: turned(v) for k, v in reversed(value.items())} if isinstance(value, dict) else value

    other_job = Job.model_validate(turned(wanted.model_dump(mode="json")))
    other_world = Facts.model_validate(turned(world.model_dump(mode="json")))
    assert builders.plan(other_job, other_world).content_hash() == builders.plan(wanted, world).content_hash()


@settings(max_examples=15, deadline=None)
@given(models, goals, rows, sizes, forced)
def test_every_flip_is_true(model: Any, goal: str, n: int, memory: int, method: str | None) -> None:
    wanted = job(goal=goal, method=method)
    world = facts(model, data_facts(n), a100(memory_bytes=memory))
    plan = builders.plan(wanted, world)
    now = plan.verdict.candidate or "none"
    assert verdict(wanted, world) == now
    for flip in plan.flips:
        then, before = flip.then.split(" instead of ")
        assert before == now != then
        assert verdict(wanted, _just_beyond(flip.if_, world)) == then


def _just_beyond(said: str, world: Facts) -> Facts:
    """The world at the value that a flip names, past it by what rounding the sentence may have cost."""
    found = re.search(r"the device had ([\d.]+) GB instead of ([\d.]+) GB", said)
    if found:
        wanted = round(float(found[1]) * GB)
        wanted += 6_000_000 if wanted > world.device.memory_bytes else -6_000_000
        device = world.device.model_copy(update={"memory_bytes": wanted})
        return world.model_copy(update={"device": device})
    found = re.search(r"the data had ([\d,]+) answer tokens instead of ([\d,]+)", said)
    assert found, said
    factor = (int(found[1].replace(",", "")) + 1) / world.data.supervised_tokens
    counts = {k: round(getattr(world.data, k) * factor) for k in ("rows", "tokens", "supervised_tokens")}
    return world.model_copy(update={"data": world.data.model_copy(update=counts)})


def test_a_laptop_job_flips_with_memory_and_with_data() -> None:
    told = [f.if_ for f in plan_of("style-laptop").flips]
    assert any("the device had" in t for t in told) and any("the data had" in t for t in told)


def test_where_nothing_runs_the_flip_says_what_would() -> None:
    flips = plan_of("tiny-memory").flips
    assert len(flips) == 1 and flips[0].then.endswith("instead of none")


# -- forcing -------------------------------------------------------------------------------------


def test_a_forced_method_overrides_soft_rules_with_a_warning() -> None:
    plan = plan_of("forced-full")
    assert plan.verdict.method == "full"
    assert any(w.startswith("the job forces full against the rule adapter_suffices") for w in plan.warnings)
    assert {r.rule for r in plan.rejected if r.method == "lora-r8"} == {"preference"}


def test_a_forced_method_does_not_override_memory() -> None:
    plan = builders.plan(job(method="full"), facts(llama3_8b(), device=a100(memory_bytes=40 * GB)))
    assert plan.verdict.method == "none" and plan.runner_up is not None
    assert {r.rule for r in plan.rejected if r.method.startswith("full")} == {"memory_fits"}


@pytest.mark.parametrize(
    ("wanted", "device", "rule"),
    [
        (job(budget={"hours": 0.0001}), laptop(), "within_hours"),
        (job(budget={"usd": 0.0001}), a100(), "within_usd"),
        (job(), laptop(disk_free_bytes=1000), "disk_fits"),
        (job(), laptop(memory_bytes=1000), "memory_fits"),
    ],
)
@pytest.mark.parametrize("method", [None, *METHODS])
def test_each_hard_rule_alone_can_stop_everything(wanted: Job, device: Any, rule: str, method: str | None) -> None:
    wanted = Job.model_validate(wanted.model_dump(mode="json") | {"method": method})
    plan = builders.plan(wanted, facts(device=device))
    assert plan.verdict.method == "none" and {r.rule for r in plan.rejected} == {rule}
    assert all(r.would_flip_if for r in plan.rejected)


def test_a_forced_method_that_suits_is_not_warned_about() -> None:
    assert not [w for w in builders.plan(job(method="lora")).warnings if "against the rule" in w]


# -- what the job overrides is said --------------------------------------------------------------

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
    plan = builders.plan(job(train={name: OVERRIDES[name]}))
    told = [w for w in plan.warnings if w.startswith(f"train.{name}: {OVERRIDES[name]} is the job's, the plan would")]
    assert len(told) == 1


def test_an_override_of_the_method_is_said_with_both_values() -> None:
    warnings = builders.plan(job(method={"name": "lora", "r": 4, "lora_dropout": 0.1})).warnings
    assert "method.r: 4 is the job's, the plan would take 8" in warnings
    assert "method.lora_dropout: 0.1 is the job's, the plan would take 0.0" in warnings


def test_what_agrees_with_the_plan_is_no_override() -> None:
    same = builders.plan().verdict.config
    assert same is not None
    plan = builders.plan(job(train={"learning_rate": same.learning_rate, "seed": same.seed, "bf16": True}))
    assert not [w for w in plan.warnings if "is the job's" in w]


def test_keys_that_nothing_reads_yet_are_said() -> None:
    warnings = builders.plan(job(forgetting={"action": "stop"}, method={"name": "full", "r": 4})).warnings
    assert any("not acted on in this version: forgetting.action: stop" in w for w in warnings)
    assert any("not acted on in this version: method.r" in w for w in warnings)


def test_lost_rows_and_missing_measures_are_warned_about() -> None:
    lost = data_facts(long_rows=7, dropped_rows=7, lost_supervised_tokens=90)
    bare = {"train": "/clinic/train.jsonl"}
    text = "\n".join(builders.plan(job(data=bare, format=None, goal="instruction"), facts(data=lost)).warnings)
    assert "7 of 247 training rows are too long; 7 rows and 90 answer tokens are lost" in text
    assert "no data.general" in text and "no format" in text
    text = "\n".join(builders.plan(job(data=bare, goal="knowledge")).warnings)
    assert "knowledge without data.facts" in text and "paraphrases" in text


def test_a_budget_that_cannot_be_checked_is_said() -> None:
    unknown = a100(price=None, matmul_flops={})
    told = builders.plan(job(budget={"usd": 1, "hours": 1}), facts(device=unknown)).warnings
    assert "budget.usd is not checked: no on-demand price of A100-80GB is known" in told
    assert "budget.hours is not checked: the speed of A100-80GB is not known" in told
    checked = builders.plan(job(budget={"usd": 1000, "hours": 1000}), facts(device=a100())).warnings
    assert not [w for w in checked if "budget" in w]


def test_an_unsure_job_is_asked_and_not_trusted() -> None:
    plan = builders.plan(job(goal="unsure"))
    assert plan.verdict.confidence == "low" and "instruction" in plan.questions[0]


# -- targets and evidence ------------------------------------------------------------------------


def test_unknown_targets_and_ranks_beyond_the_matrix_are_refused() -> None:
    world = facts()
    with pytest.raises(JobError, match="no linear layer"):
        builders.plan(job(method={"name": "lora", "target_modules": ["c_attn"]}))
    with pytest.raises(JobError, match=r"method\.r is 193") as caught:
        require_known_targets(job(method={"name": "lora", "r": 193}), world)
    assert caught.value.expected == "a rank of 1 to 192"
    require_known_targets(job(method={"name": "lora", "r": 193, "target_modules": ["q_proj"]}), world)
    require_known_targets(job(method={"name": "lora", "r": 192}), world)


def test_rules_and_evidence_name_each_other() -> None:
    cited = {i for ids in RULE_EVIDENCE.values() for i in ids}
    assert cited == set(evidence())
    for entry in evidence().values():
        assert set(entry) >= {"source", "text", "confidence"} and set(entry) <= {
            "source",
            "text",
            "confidence",
            "other_side",
        }


def test_evidence_is_spelled_out_with_the_other_side() -> None:
    (told,) = cite("E12")
    assert told.startswith("E12: PEFT method comparison") and "The other side: " in told
    plan = plan_of("style-laptop")
    assert any("E6: LoRA Without Regret" in e for r in plan.reasons for e in r.evidence)


def test_every_rule_that_has_evidence_is_told_in_some_situation() -> None:
    told = {r.rule for name in SITUATIONS for r in plan_of(name).reasons}
    rejected = {r.rule for name in SITUATIONS for r in plan_of(name).rejected}
    assert set(RULE_EVIDENCE) <= told | rejected
