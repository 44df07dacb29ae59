"""Calls, the arms that stand for them, the lesson's function, metrics by hand, and the page from the result."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from benchmarks.decisions import bench
from benchmarks.decisions.call import Call, lora_r16, of_lesson, of_plan, options, ours, saving, target_class
from benchmarks.decisions.case import Arm, Source, flat, read_cases
from benchmarks.decisions.compare import judged, metrics, noise_units, row
from benchmarks.decisions.lesson import rank, recommend_fine_tuning_method
from benchmarks.decisions.readme import readme
from benchmarks.decisions.standing import standing
from hypothesis import given
from hypothesis import strategies as st

from rankwise.api import load_job, plan_job
from tests.benchmarks.test_decisions_cases import CASES, FILES, case

RESULT = Path(bench.__file__).parent / "result.json"


def arm(name: str, method: str, score: float = 0.5, **said: Any) -> Arm:
    return Arm(name=name, method=method, score=score, **said)


def call(method: str, r: int | None = None, targets: str | None = "all-linear", **said: Any) -> Call:
    return Call(method=method, r=r, targets=targets, said=method, **said)


def stands(arms: list[Arm], said: Call) -> str | None:
    return standing(case(arms=tuple(arms)), said).arm


def lesson(size: float, gpus: int, objective: str, variants: int = 1, examples: int = 50) -> dict[str, Any]:
    return recommend_fine_tuning_method(size, gpus, examples, objective, variants, 1000)


# The lesson's function, as science.md A3 recorded it.


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        pytest.param((70, 1, "instruction", 10), "lora", id="F1"),
        pytest.param((70, 1, "instruction"), "lora", id="F2"),
        pytest.param((400, 1, "domain_knowledge"), "qlora", id="F3"),
        pytest.param((13, 0, "instruction"), "lora", id="F3-no-gpu"),
        pytest.param((13, 2, "domain_knowledge"), "qlora", id="F4"),
        pytest.param((70, 64, "domain_knowledge", 4), "lora", id="F5"),
        pytest.param((7, 8, "task_specific", 1, 20_000), "lora", id="F6"),
        pytest.param((7, 8, "domain-knowledge"), "lora", id="F7"),
        pytest.param((7, 1, "domain_knowledge"), "qlora", id="F16"),
        pytest.param((7, 2, "domain_knowledge"), "full_fine_tuning", id="fits"),
    ],
)
def test_the_lesson_answers_as_recorded(asked: tuple[Any, ...], answer: str) -> None:
    assert lesson(*asked)["recommendation"] == answer


def test_the_lesson_counts_gpus_as_recorded() -> None:
    assert lesson(70, 1, "instruction", 10)["lora_gpus_needed"] == 3
    assert lesson(400, 1, "domain_knowledge")["qlora_gpus_needed"] == 4
    assert lesson(13, 2, "domain_knowledge")["lora_gpus_needed"] == 1
    assert lesson(32, 2, "instruction")["lora_gpus_needed"] == 2, "F11: 80.0 GB is one GPU too many"
    assert lesson(70, 16, "instruction")["full_ft_gpus_needed"] == 13


def test_the_lesson_contradicts_itself() -> None:
    answer = lesson(70, 64, "domain_knowledge", 4)
    assert answer["recommendation"] == "lora"
    assert any("will limit how much new knowledge" in reason for reason in answer["reasons"]), "F15"


@given(st.floats(0.1, 500), st.integers(0, 64), st.integers(1, 30_000), st.integers(1, 9), st.floats(1, 1e6))
def test_the_lesson_ignores_budget_and_examples(
    size: float, gpus: int, examples: int, variants: int, budget: float
) -> None:
    answers = {
        recommend_fine_tuning_method(size, gpus, k, "instruction", variants, usd)["recommendation"]
        for k in (examples, 1)
        for usd in (budget, 1)
    }
    assert answers == {"lora"}, "F8, F10"


def test_the_lessons_ranks() -> None:
    assert [rank(examples) for examples in (9_999, 10_000, 500_000, 500_001)] == [8, 16, 16, 64]


def test_the_lesson_is_asked_in_its_own_units() -> None:
    small = case(goal="knowledge", model="llama-2-7b", gpu="A10G-24GB", count=1)
    assert of_lesson(small).method == "qlora"
    large = case(goal="knowledge", model="llama-2-7b", gpu="A100-80GB", count=4)
    assert of_lesson(large) == Call(method="full", said="full")
    assert of_lesson(case(goal="knowledge", force="lora", count=4)).method == "lora"


# Which arm stands for a call.


def test_the_same_method_stands_first() -> None:
    arms = [arm("q", "qlora", r=16), arm("l", "lora", r=64), arm("f", "full")]
    assert stands(arms, call("lora", 16)) == "l"
    assert stands(arms, call("qlora", 64)) == "q"
    assert stands(arms, call("full", targets=None)) == "f"


def test_a_near_equivalent_stands_where_the_method_is_missing() -> None:
    found = standing(case(arms=(arm("q", "qlora", r=16), arm("f", "full"))), call("lora", 16))
    assert found.arm == "q"
    assert "no arm of lora" in found.how
    assert stands([arm("d", "dora"), arm("f", "full")], call("rslora", 64)) == "d"


def test_no_arm_stands_for_another_family() -> None:
    arms = [arm("l", "lora", r=16), arm("p", "prefix")]
    assert stands(arms, call("full", targets=None)) is None
    assert stands(arms, call("bottleneck")) is None
    assert stands(arms, call("ia3")) is None
    assert stands(arms, call("none")) is None


def test_the_class_of_the_targets_comes_before_the_rank() -> None:
    arms = [arm("attention", "lora", r=16, targets="attention"), arm("mlp", "lora", r=128, targets="mlp")]
    assert stands(arms, call("lora", 16)) == "mlp"
    assert stands(arms, call("lora", 16, "attention")) == "attention"
    assert stands([*arms[:1], arm("f", "full")], call("lora", 16)) == "attention"


def test_the_nearest_rank_by_ratio() -> None:
    arms = [arm(f"r{r}", "lora", r=r) for r in (4, 16, 64, 256)] + [arm("unknown", "lora")]
    assert [stands(arms, call("lora", r)) for r in (1, 7, 9, 100, 200, 512)] == [
        "r4",
        "r4",
        "r16",
        "r64",
        "r256",
        "r256",
    ]


@given(st.lists(st.integers(1, 512), min_size=1, max_size=6, unique=True), st.integers(1, 512))
def test_the_nearest_rank_is_nearest(ranks: list[int], asked: int) -> None:
    arms = [arm(f"r{r}", "lora", r=r) for r in ranks] + [arm("f", "full")]
    found = int((stands(arms, call("lora", asked)) or "").removeprefix("r"))
    assert all(max(found, asked) / min(found, asked) <= max(r, asked) / min(r, asked) + 1e-9 for r in ranks)


def test_a_recipe_that_saves_memory_stands_for_its_like() -> None:
    gone = Arm(name="adam", method="full", fits=False, why_not="out of memory")
    arms = [gone, arm("saving", "full", recipe="block-coordinate")]
    assert stands(arms, call("full", targets=None)) == "adam"
    assert stands(arms, call("full", targets=None, recipe="adamw_8bit")) == "saving"


def test_the_first_rung_is_the_call_where_an_arm_has_it() -> None:
    arms = [arm("look up", "retrieval"), arm("f", "full")]
    assert stands(arms, call("full", targets=None, rung="retrieval")) == "look up"
    assert stands(arms, call("full", targets=None, rung="prompting")) == "f"
    assert stands(arms, call("full", targets=None)) == "f"


# Judgement and metrics.


def test_a_call_is_judged_by_the_arm_that_stands_for_it() -> None:
    asked = case(arms=(arm("f", "full", 0.5), arm("l", "lora", 0.4, r=16)))
    good, bad = judged(asked, call("full", targets=None)), judged(asked, call("lora", 16))
    assert (good["agree"], good["regret"], good["thrift"], good["why"]) == (True, 0, True, None)
    assert (bad["agree"], bad["thrift"]) == (False, None)
    assert bad["regret"] == pytest.approx(0.1)
    assert bad["regret_noise"] == pytest.approx(0.1 / asked.gap(asked.arms[1]))
    assert "f, 0.5" in bad["why"]


def test_full_where_an_adapter_ties_is_no_thrift() -> None:
    asked = case()
    assert judged(asked, call("full", targets=None))["thrift"] is False
    assert judged(asked, call("lora", 16))["thrift"] is True


def test_a_call_without_an_arm_costs_as_much_as_the_worst_arm() -> None:
    asked = case(arms=(arm("f", "full", 0.5), arm("l", "lora", 0.2, r=16)))
    missed = judged(asked, call("ia3"))
    assert (missed["agree"], missed["regret"]) == (False, None)
    assert missed["regret_noise"] == noise_units(asked, asked.arms[1]) > 1
    assert judged(case(), call("ia3"))["regret_noise"] == 1


def test_an_arm_that_did_not_run_is_a_miss() -> None:
    gone = Arm(name="f", method="full", fits=False, why_not="out of memory")
    missed = judged(case(arms=(gone, arm("l", "lora", r=16))), call("full", targets=None))
    assert (missed["agree"], missed["regret"]) == (False, None)
    assert "out of memory" in missed["why"]


def source(held: bool, evidence: str = "") -> Source:
    return Source(
        id=f"s{held}", title="S", url="https://s.org", read="read", where="t", evidence=evidence, held_out=held
    )


def test_metrics_by_hand() -> None:
    asked = case(arms=(arm("f", "full", 0.5), arm("l", "lora", 0.2, r=16)))
    right, wrong = call("full", targets=None), call("lora", 16)

    def made(held: bool, us: Call, base: Call) -> dict[str, Any]:
        return row(source(held, "" if held else "E1"), asked, {"ours": us, "lora_r16": base, "lesson": base})

    rows = [made(True, right, wrong), made(False, right, wrong), made(False, right, wrong), made(False, wrong, right)]
    found = metrics(rows)
    assert found["cases"] == 4
    assert (found["agreement"], found["agreement_lora_r16"]) == (0.75, 0.25)
    assert found["agreement_held_out"] == 1
    assert found["agreement_tuned"] == pytest.approx(2 / 3)
    assert found["agreement_not_in_evidence"] == 1
    assert found["agreement_mean_of_sources"] == pytest.approx((1 + 2 / 3) / 2)
    # Wilson for 3 of 4, by the formula.
    n, p, z = 4, 0.75, 1.959964
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert found["agreement_low"] == pytest.approx((middle - half) / (1 + z * z / n), abs=1e-6)
    assert found["agreement_high"] == pytest.approx((middle + half) / (1 + z * z / n), abs=1e-6)
    # McNemar: 3 against 1 of 4 differences, 2 (1 + 4) / 16.
    assert (found["only_ours_against_lesson"], found["only_lesson"]) == (3, 1)
    assert found["p_against_lesson"] == pytest.approx(10 / 16)


def test_cases_without_a_winner_are_counted_apart() -> None:
    tied = row(source(True), case(), {name: call("lora", 16) for name in ("ours", "lora_r16", "lesson")})
    lost = case(id="two", arms=(arm("f", "full", 0.5), arm("l", "lora", 0.2, r=16)))
    rows = [tied, row(source(True), lost, {name: call("lora", 16) for name in ("ours", "lora_r16", "lesson")})]
    found = metrics(rows)
    assert (found["agreement"], found["agreement_decisive"], found["cases_decisive"]) == (0.5, 0, 1)


# Our own call.


def test_classes_of_targets() -> None:
    assert target_class("all-linear") == "all-linear"
    assert target_class(("q_proj", "v_proj")) == "attention"
    assert target_class(("up_proj", "down_proj")) == "mlp"
    assert target_class(("q_proj", "up_proj")) == "all-linear"
    assert target_class(None) is None


def test_our_call_comes_from_the_planner() -> None:
    asked = next(each for each in CASES if each.id == "tinker-llama-3.2-1b")
    said = ours(asked)
    assert said.method == "lora"
    assert said.r is not None
    assert said.r >= 1
    assert standing(asked, said).arm is not None
    assert lora_r16(asked).r == 16


def test_the_first_rung_is_read_from_the_plan() -> None:
    asked = next(each for each in CASES if each.id == "ovadia-events-mistral")
    plan = plan_job(load_job(None, options(asked)))
    said = of_plan(plan)
    assert said.method == plan.verdict.method
    assert plan.verdict.first_try[0].startswith("retrieval")
    assert said.rung == "retrieval"
    silent = plan.model_copy(update={"verdict": plan.verdict.model_copy(update={"first_try": ()})})
    assert of_plan(silent) == said.model_copy(
        update={"rung": None, "said": said.said.removesuffix(", first retrieval")}
    )
    config = plan.verdict.config
    assert config is not None
    plain = config.model_copy(update={"optim": "adamw_torch_fused", "optimizer_in_backward": False})
    assert saving(plain) is None
    assert saving(plain.model_copy(update={"optimizer_in_backward": True})) == "in backward"
    assert saving(plain.model_copy(update={"optim": "adamw_8bit"})) == "adamw_8bit"


def test_a_refused_case_is_a_call_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = case(model="no-such-model-anywhere")
    monkeypatch.setattr(bench, "CALLERS", {"ours": ours})
    said = bench.calls(asked)["ours"]
    assert said.method == "refused"
    assert "no-such-model" in said.said


# The files.


def test_explanations_are_of_cases() -> None:
    explained = tomllib.loads(bench.EXPLAINED.read_text(encoding="utf-8"))
    assert explained.keys() <= {each.id for each in CASES}
    assert all(len(text) > 20 for text in explained.values())


@pytest.mark.skipif(not RESULT.exists(), reason="`make bench-decisions` was not run yet")
def test_the_page_and_the_metrics_follow_from_the_rows() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert metrics(result["rows"]) == pytest.approx(result["metrics"])
    assert readme(result) == (RESULT.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not RESULT.exists(), reason="`make bench-decisions` was not run yet")
def test_the_result_is_of_these_cases_and_explains_its_misses() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert [of["id"] for of in result["rows"]] == [each.id for _, each in flat(read_cases())]
    for of, (_, each) in zip(result["rows"], flat(FILES), strict=True):
        assert of["best"] == each.best().name
        assert of["winners"] == [winner.name for winner in each.winners()]
    misses = {of["id"] for of in result["rows"] if not of["calls"]["ours"]["agree"]}
    assert misses == result["explained"].keys()
