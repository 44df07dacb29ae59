"""Warnings: what is risky, what was not checked, what was forced, and what no part of this version reads."""

from typing import Any

import pytest

from rankwise.decide.parallel import carries
from rankwise.methods import METHODS
from rankwise.records import Facts
from tests import builders
from tests.builders import a100, data_facts, diagnosis, job
from tests.decide import worlds


def warned(facts: Facts | None = None, **changes: Any) -> str:
    return "\n".join(worlds.plan_of(job(**changes), facts or worlds.world()).warnings)


FORCED = {
    "prompt": ("prompt", "discouraged"),
    "prefix": ("prefix", "discouraged"),
    "ia3": ("ia3", "discouraged"),
    "dora": ("dora", "variant_needs_sweep"),
    "rslora": ("rslora", "variant_needs_sweep"),
    "bottleneck": ("bottleneck", "variant_needs_sweep"),
}


@pytest.mark.parametrize("name", FORCED)
def test_a_forced_method_that_is_not_recommended_runs_with_its_rule(name: str) -> None:
    method, rule = FORCED[name]
    plan = worlds.plan_of(job(method=method), worlds.world())
    assert plan.verdict.method == method and plan.verdict.confidence == "low"
    assert plan.warnings[0].startswith(f"the job forces {method} against the rule {rule}: ")


def test_forced_attention_alone_runs_with_its_rule() -> None:
    plan = worlds.plan_of(job(method={"name": "lora", "target_modules": ["q_proj", "v_proj"]}), worlds.world())
    assert plan.verdict.method == "lora" and plan.verdict.config
    assert plan.verdict.config.target_modules == ("q_proj", "v_proj")
    assert "against the rule attention_only" in plan.warnings[0] and "targets q_proj, v_proj" in plan.warnings[0]


def test_a_forced_method_that_breaks_no_rule_is_not_warned_about() -> None:
    assert "against the rule" not in warned(method="lora")


@pytest.mark.parametrize(("method", "rule"), [("full", "adapter_suffices"), ("qlora", "quantisation_needed")])
def test_a_forced_method_beside_a_better_one_runs_with_its_rule(method: str, rule: str) -> None:
    plan = worlds.plan_of(job(method=method), worlds.world())
    assert plan.verdict.method == method
    assert plan.warnings[0].startswith(f"the job forces {method} against the rule {rule}: ")


def test_an_adapter_that_is_too_small_is_taken_only_where_nothing_else_runs_and_says_so() -> None:
    data = data_facts(20_000_000, 512)
    seen = builders.facts(builders.llama3_8b(), data, a100(memory_bytes=14 * builders.GB))
    plan = worlds.plan_of(job(), seen)
    assert plan.verdict.method in ("lora", "qlora")
    assert "is the best that runs here against the rule capacity_suffices" in plan.warnings[0]
    assert any("cannot hold what the data teaches" in r.text for r in plan.reasons)


def test_a_budget_that_cannot_be_checked_is_said() -> None:
    unknown = worlds.world(device=worlds.card(price=None, matmul_flops={}))
    told = warned(unknown, budget={"usd": 1, "hours": 1})
    assert "budget.usd is not checked: no on-demand price of A100-80GB is known" in told
    assert "budget.hours is not checked: the speed of A100-80GB is not known" in told
    known = warned(budget={"usd": 1000, "hours": 1000})
    assert "budget.usd" not in known and "budget.hours" not in known


def test_a_project_beyond_the_budget_is_said_with_both_sums() -> None:
    one = worlds.usual().chosen()
    assert one and one.money.train_usd
    told = warned(budget={"usd": one.money.train_usd * 3}, variants=2)
    assert "rule project_within_usd" in told and "10 to 20 runs for each of 2 tenants" in told
    assert "project_within_usd" not in warned(budget={"usd": one.money.train_usd * 100})


def test_lost_rows_and_missing_measures_are_said() -> None:
    lost = worlds.world(data=data_facts(long_rows=7, dropped_rows=7, lost_supervised_tokens=90))
    told = warned(lost, data={"train": "/clinic/train.jsonl"}, format=None)
    assert "7 of 247 training rows are too long; 7 rows and 90 answer tokens are lost" in told
    assert "no data.general" in told and "no format" in told
    told = warned(goal="knowledge", data={"train": "/clinic/train.jsonl"})
    assert "knowledge without data.facts" in told and "10 wordings of each fact and 100 exposures" in told


def test_a_length_that_was_assumed_is_said() -> None:
    assert "data.tokens_per_example is not said: 91 tokens a row are assumed" in warned(data={"examples": 240})
    assert "assumed" not in warned(data={"examples": 240, "tokens_per_example": 91})


@pytest.mark.parametrize(("rows", "said"), [(0, False), (48, True), (99, True), (100, False)])
def test_few_held_out_rows_say_what_they_can_tell(rows: int, said: bool) -> None:
    assert ("rule significance" in warned(worlds.world(data=data_facts(validation_rows=rows)))) == said


def test_an_adapter_between_the_thresholds_is_named_as_a_risk() -> None:
    assert "times what is to be learned" in warned(worlds.world(rows=15_000), method={"name": "lora", "r": 64})
    assert "times what is to be learned" not in warned()


@pytest.mark.parametrize(
    ("nats", "words"), [(0.001, "is cut by 9"), (0.1, "is cut by 3"), (0.5, "watch the general loss"), (2.0, "")]
)
def test_a_forgetting_budget_below_what_is_expected_is_said(nats: float, words: str) -> None:
    told = warned(forgetting={"budget_nats": nats})
    assert ("rule forgetting_budget" in told) == bool(words) and words in told


@pytest.mark.parametrize(
    ("steps", "options", "said"),
    [
        (6, {}, True),
        (400, {}, False),
        (6, {"learning_rate": 1e-3}, False),
        (6, {"bf16": False}, False),
        (6, {"dtype": "bf16", "bf16_stochastic_round": True}, False),
    ],
)
def test_updates_that_autocast_rounds_away_are_said(steps: int, options: dict[str, Any], said: bool) -> None:
    train = {"max_steps": steps, "learning_rate": 1e-5, **options}
    told = warned(method="full", train=train)
    assert ("the forward pass will see little of it" in told) == said


@pytest.mark.parametrize(("count", "how"), [(40, "train those rows alone"), (400, "train embedding and head")])
def test_new_tokens_by_their_share_of_the_vocabulary(count: int, how: str) -> None:
    told = warned(data={"examples": 240, "new_tokens": count}, serving={"engine": "vllm"})
    assert how in told and "vLLM loads them merged only" in told and "rule new_tokens" in told


@pytest.mark.parametrize(("domain", "said"), [("general", False), ("code", True), ("language", True)])
def test_replay_below_what_the_shift_asks_for_is_said(domain: str, said: bool) -> None:
    data = {"train": "/clinic/train.jsonl", "domain": domain, "general": {"path": "/g.jsonl", "share": 0.05}}
    assert ("25% is what such a shift asks for" in warned(data=data)) == said


@pytest.mark.parametrize(
    ("goal", "conclusion", "said"),
    [("instruction", "knowledge", True), ("knowledge", "style", True), ("task", "style", False)],
)
def test_a_diagnosis_that_contradicts_the_goal_is_said(goal: str, conclusion: str, said: bool) -> None:
    seen = worlds.world().model_copy(update={"diagnosis": diagnosis(conclusion)})
    assert ("and the diagnosis says" in warned(seen, goal=goal)) == said


def test_keys_that_nothing_reads_yet_are_said() -> None:
    assert "not acted on in this version: data.new_tokens" in warned(
        data={"train": "/clinic/train.jsonl", "new_tokens": 3}
    )
    assert "not acted on" not in warned(forgetting={"action": "stop"})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2])
def test_what_this_version_cannot_train_is_said(method: str, count: int) -> None:
    plan = worlds.plan_of(job(method=method), worlds.world(device=worlds.card(count=count)))
    told = any("cannot carry out" in w for w in plan.warnings)
    assert told == (not plan.verdict.executable)
    assert plan.verdict.executable or carries(method, str(plan.verdict.parallel)) is not None
