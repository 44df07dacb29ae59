"""The ways below fine-tuning: when each is tried first, what it costs, and that none hides the verdict."""

from typing import Any

import pytest

from rankwise.decide.rulebook import rules, threshold
from rankwise.decide.rungs import first_try, rungs
from rankwise.records import Facts, Job, Rung
from tests.builders import data_facts, diagnosis, job
from tests.decide import worlds


def rung(name: str, wanted: Job | None = None, facts: Facts | None = None) -> Rung:
    return {r.name: r for r in rungs(wanted or job(), facts or worlds.world(), None)}[name]


def measured(**changes: Any) -> Facts:
    return worlds.world().model_copy(update={"diagnosis": diagnosis(**changes)})


def known(loss: float) -> Job:
    return job(data={"examples": 240, "base_loss": loss})


def test_all_three_are_always_told_with_their_rule_and_evidence() -> None:
    for wanted in (job(), job(goal="knowledge", retrieval="possible"), known(0.01)):
        found = rungs(wanted, worlds.world(), None)
        assert [r.name for r in found] == ["nothing", "prompting", "retrieval"]
        for r in found:
            assert r.text and r.rule in rules() and r.evidence


@pytest.mark.parametrize(("loss", "first"), [(0.149, True), (0.151, False), (2.0, False)])
def test_nothing_is_done_where_the_base_knows_the_answers(loss: float, first: bool) -> None:
    for found in (rung("nothing", known(loss)), rung("nothing", facts=measured(loss=loss))):
        assert found.first == first and found.number == f"{loss:.3f} nats per answer token"
    assert rung("nothing").number is None and not rung("nothing").first


@pytest.mark.parametrize(("rows", "first"), [(99, True), (100, False)])
def test_few_rows_are_put_into_the_prompt_first(rows: int, first: bool) -> None:
    facts = worlds.world(data=data_facts(rows))
    found = rung("prompting", facts=facts)
    assert found.first == first and (found.number == f"{rows:,} rows") == first
    assert found.tokens_per_request == threshold("prompting_first", "examples") * facts.data.mean_length


@pytest.mark.parametrize("goal", ["knowledge", "task", "unsure", "instruction"])
def test_prompting_is_tried_where_nothing_is_measured_but_style(goal: str) -> None:
    assert rung("prompting", job(goal=goal)).first == (goal != "instruction")


@pytest.mark.parametrize(
    ("closed", "conclusion", "first"),
    [(0.71, "style", True), (0.69, "style", False), (0.2, "prompting", True), (0.2, "knowledge", False)],
)
def test_a_diagnosis_decides_about_prompting(closed: float, conclusion: str, first: bool) -> None:
    found = rung("prompting", job(goal="task"), measured(conclusion=conclusion, prompting=closed))
    assert found.first == first and f"{closed:.0%} of the gap closed" in (found.number or "")


@pytest.mark.parametrize("goal", ["knowledge", "unsure", "instruction", "task"])
@pytest.mark.parametrize("possible", ["possible", "no"])
def test_retrieval_is_tried_for_facts_that_can_be_looked_up(goal: str, possible: str) -> None:
    found = rung("retrieval", job(goal=goal, retrieval=possible))
    assert found.first == (possible == "possible" and goal in ("knowledge", "unsure"))


def test_a_longer_prompt_takes_the_cache_of_its_tokens() -> None:
    served = worlds.priced("lora").estimate
    each = served.serving.kv_cache_bytes_per_token
    assert each
    for found in rungs(job(), worlds.world(), served):
        assert found.kv_cache_bytes == round(each * (found.tokens_per_request or 0))


def test_retrieval_is_told_before_prompting_and_nothing_before_both() -> None:
    wanted = job(goal="knowledge", retrieval="possible", data={"examples": 240, "base_loss": 0.01})
    told = first_try(rungs(wanted, worlds.world(), None))
    assert [t.split(":")[0] for t in told] == ["nothing", "retrieval", "prompting"]


def test_no_rung_hides_the_verdict() -> None:
    wanted = job(goal="knowledge", retrieval="possible", data={"examples": 240, "base_loss": 0.01})
    plan = worlds.plan_of(wanted, worlds.world())
    assert plan.verdict.config is not None and len(plan.verdict.first_try) == 3
    assert worlds.usual().verdict.first_try == ()
