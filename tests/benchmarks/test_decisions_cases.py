"""The published head-to-heads: the files parse, every figure has a source, noise and winners by hand."""

import math
from typing import Any, get_args

import pytest
from benchmarks.decisions.call import OBJECTIVES, options, parameters
from benchmarks.decisions.case import (
    FOLDER,
    HELD_OUT,
    RUNGS,
    Arm,
    Case,
    CaseError,
    Noise,
    flat,
    held_out,
    read_cases,
    read_file,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rankwise.api import load_job
from rankwise.observe.catalogue import rows
from rankwise.observe.devices import observe_device
from rankwise.records.job import Hardware
from rankwise.records.plan import Rung

FILES = read_cases()
CASES = [case for _, case in flat(FILES)]
GSM8K = Noise(items=(1319,))


def case(**changed: Any) -> Case:
    arms = (Arm(name="full", method="full", score=0.5), Arm(name="adapter", method="lora", r=16, score=0.49))
    said: dict[str, Any] = {
        "id": "one",
        "title": "One",
        "goal": "task",
        "task": "questions",
        "domain": "general",
        "model": "llama-2-7b",
        "examples": 1000,
        "tokens_per_example": 100,
        "tokens_note": "counted",
        "gpu": "A100-80GB",
        "metric": "accuracy",
        "higher_is_better": True,
        "noise": GSM8K,
        "arms": arms,
    }
    return Case(**(said | changed))


def test_enough_cases_of_enough_sources_are_held_out_by_source() -> None:
    assert len(CASES) >= 34
    assert len(FILES) >= 10
    held = [of for of in FILES if of.source.held_out]
    share = sum(len(of.cases) for of in held) / len(CASES)
    assert HELD_OUT <= share < 0.5
    assert {of.source.id for of in held} == held_out({of.source.id: len(of.cases) for of in FILES})


def test_every_kind_of_answer_is_among_the_cases() -> None:
    winners = {arm.method for each in CASES if each.decisive for arm in each.winners()}
    assert {"full", "lora", "qlora", "retrieval", "dora", "bottleneck"} <= winners
    losers = {arm.method for each in CASES for arm in each.arms if not each.wins(arm)}
    assert {"full", "lora", "qlora", "prompt", "prefix", "ia3", "nothing"} <= losers


@pytest.mark.parametrize("each", CASES, ids=lambda each: each.id)
def test_the_setup_is_one_that_the_planner_knows(each: Case) -> None:
    assert each.model in {row["name"] for row in rows()}
    assert observe_device(Hardware(gpu=each.gpu, count=each.count)).memory_bytes
    assert parameters(each.model) > 1e8
    assert each.goal in OBJECTIVES
    job = load_job(None, options(each))
    assert (job.model, job.data.examples, job.hardware.count) == (each.model, each.examples, each.count)


def test_nothing_of_the_arms_reaches_the_job() -> None:
    blind = case(arms=(Arm(name="one", method="ia3", score=0.1), Arm(name="two", method="full", score=0.9)))
    assert options(blind) == options(case())


def test_figures_have_a_source_and_no_path_of_a_machine() -> None:
    for of in FILES:
        assert of.source.url.startswith("https://")
        assert of.source.where
        text = of.model_dump_json()
        assert "/work" not in text
        assert "/tmp" not in text


def test_scores_of_accuracies_are_shares() -> None:
    for each in CASES:
        if each.noise.items:
            assert all(-1e-9 <= arm.score <= 1 for arm in each.arms if arm.score is not None), each.id


def test_the_gap_of_two_proportions() -> None:
    assert GSM8K.between(0.5, 0.5) == pytest.approx(1.96 * math.sqrt(2 * 0.25 / 1319))
    assert GSM8K.between(0.5, 0.5) == pytest.approx(0.0382, abs=1e-4)
    assert Noise(items=(164,)).between(0.4, 0.2) == pytest.approx(1.96 * math.sqrt(2 * 0.3 * 0.7 / 164))


def test_the_gap_of_a_mean_over_tests() -> None:
    once, twice = Noise(items=(500,)), Noise(items=(500, 500))
    assert twice.between(0.6, 0.7) == pytest.approx(once.between(0.6, 0.7) / math.sqrt(2))
    assert Noise(gap=0.3, why="said").between(5, 6) == 0.3


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=8), st.floats(0, 1), st.floats(0, 1))
def test_the_gap_is_symmetric_and_more_items_narrow_it(items: list[int], one: float, other: float) -> None:
    noise = Noise(items=tuple(items))
    assert noise.between(one, other) == pytest.approx(noise.between(other, one))
    assert Noise(items=tuple(4 * n for n in items)).between(one, other) == pytest.approx(noise.between(one, other) / 2)


@pytest.mark.parametrize("wrong", [{}, {"items": (10,), "gap": 0.1, "why": "both"}, {"gap": 0.1}, {"items": (0,)}])
def test_noise_is_one_thing_with_a_reason(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Noise(**wrong)


def test_winners_are_within_the_noise_of_the_best() -> None:
    tied = case()
    assert [arm.name for arm in tied.winners()] == ["full", "adapter"]
    assert not tied.decisive
    apart = case(arms=(tied.arms[0], Arm(name="adapter", method="lora", score=0.4)))
    assert [arm.name for arm in apart.winners()] == ["full"]
    assert apart.decisive
    assert apart.behind(apart.arms[1]) == pytest.approx(0.1)


def test_lower_is_better_where_the_metric_is_a_loss() -> None:
    loss = case(higher_is_better=False, noise=Noise(gap=0.005, why="said"))
    assert loss.best().name == "adapter"
    assert loss.behind(loss.arms[0]) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("budget", "cost"),
    [
        ({"hours_budget": 5.0}, {"hours": 6.0}),
        ({"usd_budget": 5.0}, {"usd": 6.0}),
        ({"memory_budget_gb": 24.0}, {"memory_gb": 36.0}),
        ({"forgetting_budget_nats": 0.03}, {"forgetting_nats": 0.05}),
    ],
)
def test_an_arm_beyond_the_budget_does_not_win(budget: dict[str, float], cost: dict[str, float]) -> None:
    best = Arm(name="full", method="full", score=0.9, **cost)
    other = Arm(name="adapter", method="lora", score=0.4)
    assert case(arms=(best, other)).best() == best
    bounded = case(arms=(best, other), **budget)
    assert bounded.best() == other
    assert bounded.decisive


def test_an_arm_that_did_not_run_does_not_win() -> None:
    gone = Arm(name="full", method="full", fits=False, why_not="out of memory")
    bounded = case(arms=(gone, Arm(name="adapter", method="lora", score=0.4)))
    assert [arm.name for arm in bounded.winners()] == ["adapter"]


@pytest.mark.parametrize(
    "arm",
    [
        {"name": "one", "method": "full"},
        {"name": "one", "method": "full", "fits": False},
        {"name": "one", "method": "full", "score": 0.1, "surprise": 1},
    ],
)
def test_an_arm_has_a_score_or_a_reason(arm: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Arm(**arm)


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.integers(1, 9), min_size=1, max_size=30))
def test_a_third_is_held_out_whatever_the_order(sizes: dict[str, int]) -> None:
    held = held_out(sizes)
    inside = sum(sizes[name] for name in held)
    assert inside >= HELD_OUT * sum(sizes.values())
    assert min((inside - sizes[name] for name in held), default=0) < HELD_OUT * sum(sizes.values())
    assert held_out(dict(reversed(sizes.items()))) == held


def test_a_wrong_file_is_named(tmp_path: Any) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[source]\nid = 3\n", encoding="utf-8")
    with pytest.raises(CaseError, match=r"wrong\.toml"):
        read_file(wrong)


def test_a_wrong_flag_is_refused(tmp_path: Any) -> None:
    text = (FOLDER / "belle.toml").read_text(encoding="utf-8")
    (tmp_path / "belle.toml").write_text(text, encoding="utf-8")
    with pytest.raises(CaseError, match="held_out"):
        read_cases(tmp_path)


def test_rungs_are_the_planners_own() -> None:
    assert set(RUNGS) == set(get_args(Rung.model_fields["name"].annotation))
