"""The eighteen faults of a published lesson's function `recommend_fine_tuning_method`, each as a test of our answer, by
the public face: catalogue models, described data, GPUs by name. F1 to F18 are numbered as in the project's notes."""

from functools import cache
from typing import Any

import pytest

from rankwise.api.planning import load_job, plan_job
from rankwise.errors import JobError
from rankwise.estimate.tracers import tracers
from rankwise.records import Plan

A100 = {"hardware.gpu": "A100-80GB"}
EXAMPLE = A100 | {
    "model": "llama-2-13b",
    "goal": "instruction",
    "hardware.count": 2,
    "data.examples": 200_000,
    "variants": 5,
    "budget.usd": 1000,
}


@cache
def _plan(asked: tuple[tuple[str, Any], ...]) -> Plan:
    with tracers(0):
        return plan_job(load_job(None, dict(asked)))


def plan(**changes: Any) -> Plan:
    """A job of one A100-80GB and 50,000 rows unless said otherwise; dots are double underscores."""
    usual = A100 | {"model": "llama-3-70b", "goal": "instruction", "data.examples": 50_000}
    return _plan(tuple((usual | {k.replace("__", "."): v for k, v in changes.items()}).items()))


def example() -> Plan:
    return _plan(tuple(EXAMPLE.items()))


def fits(found: Plan) -> bool:
    chosen = found.chosen()
    return chosen is not None and chosen.memory.fits is True


def test_its_own_example_is_still_lora_and_breaks_its_budget_aloud() -> None:
    found = example()
    assert found.verdict.method == "lora" and fits(found)
    (told,) = [w for w in found.warnings if "project_within_usd" in w]
    assert "breaks the 1,000 USD budget" in told and "5 tenants" in told
    assert any("data.tokens_per_example is not said: 512" in w for w in found.warnings)


def test_f1_many_tenants_do_not_overwrite_what_the_hardware_allows() -> None:
    found = plan(variants=10)
    assert found.verdict.method == "qlora" and fits(found)
    assert {r.rule for r in found.rejected if r.method.startswith("lora-")} <= {"states_fit", "memory_fits"}


def test_f2_lora_is_tested_for_memory() -> None:
    found = plan()
    assert found.verdict.method != "lora"
    assert {r.rule for r in found.rejected if r.method.startswith("lora-")} <= {"states_fit", "memory_fits"}
    assert any(o.method == "lora" and o.peak_device <= o.capacity for o in found.offers)


def test_f3_qlora_is_tested_for_memory_and_no_gpu_is_no_answer() -> None:
    found = plan(model="llama-3.1-405b")
    assert found.verdict.method == "none" and found.verdict.config is None
    assert {r.rule for r in found.rejected if r.method.startswith("qlora")} <= {"states_fit", "memory_fits"}
    assert found.offers and found.offers[0].usd == min(o.usd or 0 for o in found.offers)
    with pytest.raises(JobError, match=r"hardware\.count is 0"):
        plan(hardware__count=0)


def test_f4_full_that_does_not_fit_is_followed_by_lora_not_by_qlora() -> None:
    found = plan(model="llama-2-13b", goal="knowledge", hardware__count=2)
    assert found.verdict.method == "lora" and fits(found)
    assert "quantisation_needed" in {r.rule for r in found.rejected if r.method.startswith("qlora")}


def test_f5_tenants_steer_the_cost_and_not_the_objective() -> None:
    few, many = (
        plan(model="llama-2-7b", goal="knowledge", hardware__count=8, data__examples=20_000_000, variants=n)
        for n in (1, 4)
    )
    assert few.verdict.method == many.verdict.method == "full"
    assert {r.rule for r in many.rejected if r.method.startswith("lora")} == {"capacity_suffices"}


def test_f6_a_narrow_task_is_decided_by_its_data() -> None:
    little, much = (
        plan(model="llama-2-7b", goal="task", hardware__count=8, data__examples=n) for n in (10_000, 20_000_000)
    )
    assert (little.verdict.method, much.verdict.method) == ("lora", "full")
    assert little.verdict.config and little.verdict.config.num_train_epochs == 3


def test_f7_a_mistyped_objective_is_refused_with_what_was_meant() -> None:
    with pytest.raises(JobError, match="goal is 'knowlege'") as caught:
        plan(goal="knowlege")
    assert caught.value.fix == "did you mean knowledge?" and caught.value.exit_code == 2
    with pytest.raises(JobError) as caught:
        plan(goal="domain-knowledge")
    assert "instruction, knowledge, task, unsure" in caught.value.expected


def test_f8_the_budget_excludes_what_it_cannot_pay_and_warns_of_the_project() -> None:
    poor = _plan(tuple((EXAMPLE | {"budget.usd": 20}).items()))
    assert poor.verdict.method == "none"
    assert any(r.rule == "within_usd" and "5 tenants" in (r.number or "") for r in poor.rejected)
    assert any(f.axis == "budget.usd" for f in example().flips)


def test_f9_hours_follow_from_tokens_devices_and_method() -> None:
    one, two, long = (
        plan(model="llama-2-13b", hardware__count=n, data__tokens_per_example=t)
        for n, t in ((1, 512), (2, 512), (1, 1024))
    )
    seconds = [(p.chosen() or pytest.fail("no call")).time.train_seconds or 0 for p in (one, two, long)]
    assert seconds[1] < 0.7 * seconds[0] and seconds[2] > 1.7 * seconds[0]
    qlora = next(e for e in one.candidates if e.method == "qlora")
    assert (qlora.time.train_seconds or 0) > seconds[0]


def test_f10_the_amount_of_data_reaches_the_decision() -> None:
    found = plan(model="llama-2-7b", goal="task", hardware__count=8, data__examples=20_000_000)
    assert any(f.axis == "data.supervised_tokens" and "lora instead of full" in f.then for f in found.flips)


def test_f11_what_fits_one_device_is_not_given_two() -> None:
    found = plan(model="llama-2-13b", hardware__count=1)
    assert found.verdict.method == "lora" and found.verdict.parallel == "none"
    assert found.offers and min(o.count for o in found.offers if o.method == "lora") == 1


def test_f12_activations_and_logits_are_part_of_the_memory() -> None:
    short, long = (plan(model="llama-2-13b", data__tokens_per_example=t) for t in (512, 1024))
    by_id = {c.id: c.memory for c in short.candidates}
    memory = (short.chosen() or pytest.fail("no call")).memory
    assert memory.activations > 1e9 and memory.logits > 0 and memory.workspace >= 0
    chosen = (long.chosen() or pytest.fail("no call")).memory
    assert long.verdict.candidate not in by_id or chosen.peak_device > by_id[long.verdict.candidate].peak_device


def test_f13_an_adapter_scales_with_its_rank_and_full_keeps_a_master_copy() -> None:
    small, large = (
        _plan(tuple((EXAMPLE | {"method.name": "lora", "method.r": r}).items())).chosen() or pytest.fail("no call")
        for r in (16, 64)
    )
    assert large.trainable_params == 4 * small.trainable_params == 4 * 62_586_880
    lost = next(r for r in example().rejected if r.method == "full")
    assert "208.3 GB" in (lost.number or "")  # 16 bytes for each of 13.02 billion parameters


def test_f14_the_gpu_is_the_one_that_is_named() -> None:
    big, small = (plan(model="llama-2-13b", hardware__gpu=gpu) for gpu in ("A100-80GB", "A100-40GB"))
    capacities = [(p.chosen() or pytest.fail("no call")).memory.capacity or 0 for p in (big, small)]
    assert capacities[0] == pytest.approx(2 * capacities[1], rel=0.02)
    assert small.verdict.candidate != big.verdict.candidate


def test_f15_every_alternative_is_told_and_no_reason_contradicts_the_answer() -> None:
    found = plan(variants=4, goal="knowledge", model="llama-2-13b", hardware__count=2)
    assert len(found.candidates) >= 12 and found.runner_up
    lost = [r.method for r in found.rejected]
    assert {c.id for c in found.candidates} - set(lost) == {found.verdict.candidate}
    assert not any("cannot hold" in r.text for r in found.reasons)


def test_f16_a_downgrade_is_named_with_what_it_costs() -> None:
    found = plan(model="llama-2-7b", goal="knowledge", hardware__gpu="RTX 4090", data__examples=2_000_000)
    assert found.verdict.method != "full"
    lost = [r for r in found.rejected if r.method.startswith("full")]
    assert lost and all(r.number for r in lost)
    best = found.priors[found.verdict.candidate or ""]
    assert best.interval[0] < best.interval[1] and best.source
    assert any("against the rule" in w or "holds" in w or "paraphrases" in w for w in found.warnings)


def test_f17_the_adapters_size_follows_rank_and_model() -> None:
    sizes = {
        r: (_plan(tuple((EXAMPLE | {"method.name": "lora", "method.r": r}).items())).chosen() or pytest.fail("no call"))
        for r in (16, 64)
    }
    assert [sizes[r].storage.adapter_bytes for r in (16, 64)] == [
        pytest.approx(4 * 62_586_880 * r / 16, rel=0.001) for r in (16, 64)
    ]


def test_f18_what_it_never_asked_is_part_of_the_answer() -> None:
    found = plan(
        model="llama-2-13b",
        hardware__count=2,
        goal="knowledge",
        retrieval="possible",
        data__new_tokens=40,
        forgetting__budget_nats=0.001,
    )
    assert [r.name for r in found.rungs] == ["nothing", "prompting", "retrieval"]
    assert found.verdict.first_try[0].startswith("retrieval") and found.verdict.config is not None
    told = "\n".join(found.warnings)
    assert "40 new tokens" in told and "rule forgetting_budget" in told
    assert {"full-8bit-checkpointing-b1", "full-backward"} & {r.method for r in found.rejected}
    assert any(r.rule in ("merge", "many_variants") for r in found.reasons)
