"""The order in which recipes are taken, from need and capacity alone, and the rules that keep some from being taken."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.decide.capacity import bits_per_parameter
from rankwise.decide.configure import Rung
from rankwise.decide.preference import (
    attention_only,
    capacity_suffices,
    compared,
    discouraged,
    headroom,
    holds,
    precision_trap,
    recipes_for,
    takeable,
    variant_needs_sweep,
)
from rankwise.decide.recipes import BY_NAME, PLANNED_METHODS, RECIPES
from rankwise.records import Facts
from tests import builders
from tests.builders import a100, data_facts, facts, job, laptop, llama3_8b
from tests.decide import worlds

SMALL_GPU = facts(device=a100())
BIG_DATA = facts(data=data_facts(20_000_000), device=a100())


def names(found: Any) -> list[str]:
    return [recipe.name for recipe in found]


def test_adapters_come_first_where_they_hold_the_need() -> None:
    assert names(takeable(job(), SMALL_GPU))[:3] == ["lora", "qlora", "full"]


def test_full_fine_tuning_comes_first_where_no_adapter_holds_the_need() -> None:
    taken = names(takeable(job(), BIG_DATA))
    assert taken[0] == "full" and taken.index("lora") > taken.index("full-8bit")


def test_an_offload_to_memory_that_nobody_has_looked_at_is_taken_only_when_forced() -> None:
    assert "full-offload" in names(compared(job(), SMALL_GPU))
    assert "full-offload" in names(takeable(job(method="full"), SMALL_GPU))


def test_a_cpu_takes_no_gpu_optimizer_and_no_offload() -> None:
    assert names(takeable(job(), facts(device=laptop()))) == ["lora", "qlora", "full"]


models = st.sampled_from([worlds.TINY, builders.smollm2(), llama3_8b()])
jobs = st.builds(
    lambda goal, domain, method, variants: job(
        goal=goal, data={"examples": 9, "domain": domain}, method=method, variants=variants
    ),
    st.sampled_from(["instruction", "knowledge", "task", "unsure"]),
    st.sampled_from([None, "code", "math", "language"]),
    st.sampled_from([None, *PLANNED_METHODS]),
    st.integers(1, 50),
)
worlds_of = st.builds(
    lambda model, rows, cpu: facts(model, data_facts(rows), laptop() if cpu else a100()),
    models,
    st.integers(1, 10**8),
    st.booleans(),
)


@given(jobs, worlds_of)
def test_what_is_taken_and_what_is_compared_share_what_is_looked_at(wanted: Any, seen: Facts) -> None:
    looked_at, taken, beside = recipes_for(wanted, seen), takeable(wanted, seen), compared(wanted, seen)
    assert sorted(names(looked_at)) == sorted([*names(taken), *names(beside)])
    assert taken and (wanted.method is None or {r.method for r in taken} == {wanted.method.name})


@given(jobs, worlds_of)
def test_only_usual_recipes_are_taken_unless_one_is_forced(wanted: Any, seen: Facts) -> None:
    for recipe in takeable(wanted, seen):
        assert recipe.kind != "unkept"
        if wanted.method is None:
            assert recipe.kind == "usual" and precision_trap(wanted, seen, recipe) is None


@given(jobs, worlds_of)
def test_an_adapter_that_holds_goes_before_full_and_one_that_does_not_goes_after(wanted: Any, seen: Facts) -> None:
    taken = takeable(wanted, seen)
    if wanted.method is not None:
        return
    place = {recipe.name: n for n, recipe in enumerate(taken)}
    for name in ("lora", "qlora"):
        assert (place[name] < place["full"]) == holds(wanted, seen, BY_NAME[name])


@given(st.integers(1, 10**8), st.integers(1, 10**8))
def test_more_data_never_leaves_more_headroom_at_the_same_rank(rows: int, more: int) -> None:
    wanted = job(method={"name": "lora", "r": 16})
    little, much = (facts(data=data_facts(n)) for n in (rows, rows + more))
    assert headroom(wanted, little, BY_NAME["lora"]) >= headroom(wanted, much, BY_NAME["lora"])


# -- soft rules ------------------------------------------------------------------------------------


def test_capacity_turns_at_half_of_the_need() -> None:
    wanted, lora = job(method={"name": "lora", "r": 8}), BY_NAME["lora"]
    held = headroom(wanted, facts(data=data_facts(1)), lora) * max(1.0, data_facts(1).supervised_tokens)
    below, above = (
        facts(data=data_facts().model_copy(update={"supervised_tokens": round(held * 2 * factor)}))
        for factor in (0.99, 1.01)
    )
    adapter = worlds.priced("lora", wanted, facts())
    assert capacity_suffices(wanted, below, adapter) is None
    broken = capacity_suffices(wanted, above, adapter)
    assert broken and broken.rule == "capacity_suffices" and "Mbit held" in (broken.number or "")
    assert capacity_suffices(wanted, above, worlds.priced("full", wanted, facts())) is None


def test_capacity_is_that_of_the_rung_that_runs_not_of_the_rank_that_was_wished_for() -> None:
    data = data_facts().model_copy(update={"supervised_tokens": 3 * 10**7})
    wide, narrow = (worlds.priced("lora", None, facts(data=data), Rung(rank=r)) for r in (64, 8))
    told = [capacity_suffices(job(), facts(data=data), p) for p in (wide, narrow)]
    held = [p.estimate.trainable_params * bits_per_parameter(job()) / 1e6 for p in (wide, narrow)]
    for found, mbit in zip(told, held, strict=True):
        assert (found is None) == (mbit >= 15) and (found is None or f"{mbit:,.1f} Mbit held" in (found.number or ""))


@pytest.mark.parametrize(("rate", "trapped"), [(0.99e-4, True), (1e-4, False), (3e-4, False)])
def test_pure_bf16_is_a_trap_below_one_in_ten_thousand(rate: float, trapped: bool) -> None:
    wanted = job(train={"learning_rate": rate, "bf16_stochastic_round": False})
    for name in ("full-bf16", "full-backward"):
        assert precision_trap(job(train={"learning_rate": rate}), SMALL_GPU, BY_NAME[name]) is None  # by chance
        found = precision_trap(wanted, SMALL_GPU, BY_NAME[name])
        assert (found is not None) == trapped and (not found or f"{rate:g}" in (found.number or ""))
    for name in ("full", "full-8bit", "lora"):
        assert precision_trap(wanted, SMALL_GPU, BY_NAME[name]) is None


def test_prompt_methods_are_discouraged_by_size_and_ia3_always() -> None:
    large = llama3_8b().model_copy(update={"total_params": 13_000_000_000})
    for model in (llama3_8b(), large):
        for name in ("prompt", "prefix", "ia3"):
            found = discouraged(job(), facts(model), BY_NAME[name], name)
            assert found and found.rule == "discouraged"
    told = discouraged(job(), facts(llama3_8b()), BY_NAME["prompt"], "prompt")
    assert told and told.number == "8.03 B parameters, 10 B needed"
    assert discouraged(job(), facts(), BY_NAME["lora"], "lora") is None


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.name)
def test_variants_need_a_sweep(recipe: Any) -> None:
    found = variant_needs_sweep(job(), facts(), recipe, recipe.name)
    assert (found is not None) == (recipe.name in ("dora", "rslora", "pissa", "bottleneck"))


@pytest.mark.parametrize(
    ("targets", "refused"),
    [
        (["q_proj", "v_proj"], True),
        (["q_proj", "k_proj", "v_proj", "o_proj"], True),
        ("q_proj", True),
        (["c_attn"], True),
        (["query_key_value"], True),
        (["query_key_value", "dense_h_to_4h"], False),
        (["q_proj", "up_proj"], False),
        (["gate_proj", "up_proj", "down_proj"], False),
        ("all-linear", False),
        (None, False),
    ],
)
def test_targets_on_attention_alone(targets: Any, refused: bool) -> None:
    wanted = job(method={"name": "lora", "target_modules": targets})
    found = attention_only(wanted, BY_NAME["lora"], "lora")
    assert (found is not None) == refused
    assert attention_only(wanted, BY_NAME["qlora"], "qlora") is None  # said of another method
