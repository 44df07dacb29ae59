"""Need and capacity in bits: formulas, floors, bounds, and counts that the traced adapter confirms."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.decide.capacity import (
    bits_per_parameter,
    bits_per_token,
    floor_of,
    most_rank,
    need_bits,
    power_of_two_below,
    rank_for,
)
from rankwise.decide.configure import Rung
from rankwise.decide.rulebook import threshold
from rankwise.errors import JobError
from rankwise.methods.lora import lora_params
from rankwise.records import Job
from tests import builders
from tests.decide import worlds


def described(**data: Any) -> Job:
    return builders.job(data={"examples": 240} | data)


def test_need_is_answer_tokens_times_bits_that_the_base_does_not_know() -> None:
    facts = worlds.world(rows=1000)
    tokens = facts.data.supervised_tokens
    assert need_bits(builders.job(), facts) == tokens  # one bit a token is assumed
    assert need_bits(described(base_loss=math.log(2) * 3), facts) == pytest.approx(3 * tokens)
    measured = facts.model_copy(update={"diagnosis": builders.diagnosis(loss=2.0)})
    assert need_bits(builders.job(), measured) == pytest.approx(tokens * 2.0 / math.log(2))


def test_what_the_job_says_goes_before_what_was_measured_before_what_is_assumed() -> None:
    facts = worlds.world()
    measured = facts.model_copy(update={"diagnosis": builders.diagnosis()})
    told = [bits_per_token(j, f)[1] for j, f in [(described(base_loss=1.0), measured), (builders.job(), measured)]]
    assert told == ["as the job says", "measured by `rankwise diagnose`"]
    assert "assumed" in bits_per_token(builders.job(), facts)[1]


def test_facts_take_twice_the_parameters_of_text() -> None:
    assert bits_per_parameter(builders.job(goal="knowledge")) == bits_per_parameter(builders.job()) / 2 == 0.5


@pytest.mark.parametrize("r", [1, 8, 64])
@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj")])
def test_the_formula_counts_what_the_traced_adapter_trains(r: int, targets: str | tuple[str, ...]) -> None:
    facts = worlds.world()
    job = builders.job(method={"name": "lora", "r": r, "target_modules": targets})
    assert lora_params(facts.model, r, targets) == worlds.priced("lora", job, facts, Rung()).estimate.trainable_params


def test_published_counts_of_adapter_parameters() -> None:
    llama = builders.facts(builders.llama3_8b())
    assert lora_params(llama.model, 16, "all-linear") == 41_943_040
    assert lora_params(llama.model, 64, ("q_proj", "k_proj", "v_proj", "o_proj")) == 54_525_952
    assert lora_params(llama.model, 16, ("q_proj", "v_proj")) == 6_815_744


def test_targets_that_the_model_lacks_are_refused() -> None:
    with pytest.raises(JobError, match="no linear layer of tiny has such a name"):
        lora_params(worlds.world().model, 8, ("c_attn",))


def test_the_rank_grows_with_what_the_data_teaches_up_to_its_limit() -> None:
    small = builders.facts(builders.smollm2())
    ranks = [
        rank_for(builders.job(), small.model_copy(update={"data": builders.data_facts(n)}), "all-linear")
        for n in (240, 50_000, 200_000, 10**9)
    ]
    assert ranks[0] == 8 and ranks == sorted(ranks) and ranks[2] > 8
    assert ranks[-1] == 128  # k_proj of the embedded model has 192 outputs, and so no higher rank


@given(st.integers(1, 10**7), st.sampled_from([None, "code", "math"]), st.sampled_from(["instruction", "knowledge"]))
def test_a_rank_holds_the_need_where_any_may(rows: int, domain: str | None, goal: str) -> None:
    job = builders.job(goal=goal, data={"examples": 1, "domain": domain})
    facts = builders.facts(builders.llama3_8b(), builders.data_facts(rows))
    for roomy in (True, False):
        r = rank_for(job, facts, "all-linear", roomy=roomy)
        held = lora_params(facts.model, r, "all-linear") * bits_per_parameter(job)
        most = most_rank(facts, "all-linear")
        assert floor_of(job, roomy=roomy) <= r <= most == 512 and r & (r - 1) == 0
        wanted = threshold("capacity_suffices", "safe") * need_bits(job, facts)
        assert held >= wanted or r == most
        smaller = lora_params(facts.model, r // 2, "all-linear") * bits_per_parameter(job)
        assert r == floor_of(job, roomy=roomy) or smaller < wanted


@pytest.mark.parametrize(
    ("changes", "floor", "roomy"),
    [
        ({}, 8, 8),
        ({"format": None}, 16, 16),
        ({"goal": "knowledge"}, 16, 16),
        ({"goal": "task"}, 16, 16),
        ({"data": {"examples": 9, "domain": "code"}}, 64, 256),
        ({"data": {"examples": 9, "domain": "math"}}, 64, 256),
        ({"data": {"examples": 9, "domain": "language"}}, 8, 8),
    ],
)
def test_floors_by_kind_of_job(changes: dict[str, Any], floor: int, roomy: int) -> None:
    job = builders.job(**changes)
    assert (floor_of(job, roomy=False), floor_of(job, roomy=True)) == (floor, roomy)


def test_the_highest_rank_is_that_of_the_narrowest_target_and_half_the_hidden_size() -> None:
    small = builders.facts(builders.smollm2())
    assert most_rank(small, "all-linear") == 128  # below 192
    assert most_rank(small, ("q_proj",)) == 256  # half of 576 is 288
    assert most_rank(worlds.world(), "all-linear") == 64


@given(st.floats(0, 1e12))
def test_powers_of_two(value: float) -> None:
    found = power_of_two_below(value)
    assert found & (found - 1) == 0 and found >= 1
    assert found <= max(1.0, value) < 2 * found
