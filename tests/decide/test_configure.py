"""Configurations that can be executed as they stand: sizes that agree, what the job says wins."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.decide.configure import Rung, configure, learning_rate, replay_share, sizes
from rankwise.decide.preference import takeable
from rankwise.decide.recipes import BY_NAME, RECIPES
from rankwise.decide.rulebook import threshold
from rankwise.decide.updates import as_asked
from rankwise.records import Facts, Job, TrainConfig, TrainOptions
from tests import builders

CPU, GPU = builders.laptop(), builders.a100()
EXECUTABLE = [r.name for r in RECIPES if r.executable]
NO_REPLAY = {"replay_allowed": False}


def config(job: Job | None = None, facts: Facts | None = None, recipe: str = "lora", **rung: Any) -> TrainConfig:
    return configure(job or builders.job(), facts or builders.facts(), BY_NAME[recipe], Rung(**rung))


batches = st.one_of(st.none(), st.integers(1, 64))


@given(
    st.integers(1, 200_000),
    batches,
    batches,
    st.sampled_from([1, 4]),
    st.booleans(),
    st.sampled_from([1.0, 2.0, 3.0]),
    st.sampled_from([r.name for r in RECIPES]),
    st.sampled_from([None, 1, 2]),
)
def test_the_steps_pass_over_the_rows_as_often_as_said(
    rows: int,
    micro: int | None,
    accumulation: int | None,
    count: int,
    gpu: bool,
    epochs: float,
    recipe: str,
    fewer: int | None,
) -> None:
    device = (GPU if gpu else CPU).model_copy(update={"count": count})
    facts = builders.facts(data=builders.data_facts(rows), device=device)
    said: dict[str, Any] = {"num_train_epochs": epochs}
    said |= {"per_device_train_batch_size": micro} if micro else {}
    said |= {"gradient_accumulation_steps": accumulation} if accumulation else {}
    job = builders.job(train=said, forgetting=NO_REPLAY)
    chosen = config(job, facts, recipe, micro_batch=fewer)
    seen = chosen.max_steps * chosen.effective_batch * count
    assert seen - chosen.effective_batch * count < rows * epochs <= seen
    assert micro in (None, chosen.per_device_train_batch_size)
    assert accumulation in (None, chosen.gradient_accumulation_steps)
    assert chosen.effective_batch <= rows or micro or accumulation
    assert chosen.per_device_train_batch_size <= (micro or fewer or 32)


@pytest.mark.parametrize(("rows", "batch"), [(1, 1), (5, 4), (50, 8), (400, 8), (800, 16), (1600, 32), (100_000, 32)])
@pytest.mark.parametrize("fewer", [None, 1])
def test_the_batch_leaves_about_a_hundred_steps_however_many_rows_go_at_once(
    rows: int, batch: int, fewer: int | None
) -> None:
    facts = builders.facts(data=builders.data_facts(rows))
    assert config(builders.job(forgetting=NO_REPLAY), facts, micro_batch=fewer).effective_batch == batch


@pytest.mark.parametrize("count", [1, 2, 8])
def test_the_batch_is_shared_by_the_devices(count: int) -> None:
    facts = builders.facts(data=builders.data_facts(100_000), device=builders.a100(count=count))
    assert config(facts=facts).effective_batch * count == 32


@pytest.mark.parametrize(("length", "at_once"), [(16, 32), (92, 4), (300, 1), (2_000, 1)])
def test_a_cpu_takes_as_many_rows_at_once_as_fill_512_tokens_and_a_gpu_eight(length: int, at_once: int) -> None:
    data = builders.data_facts(10_000, length)
    cpu, gpu = (config(facts=builders.facts(data=data, device=d)) for d in (CPU, GPU))
    assert (cpu.per_device_train_batch_size, cpu.gradient_accumulation_steps) == (at_once, 32 // at_once)
    assert (gpu.per_device_train_batch_size, gpu.gradient_accumulation_steps) == (8, 4)


def test_an_optimizer_in_the_backward_pass_takes_one_pass_a_step() -> None:
    facts = builders.facts(data=builders.data_facts(100_000), device=GPU)
    chosen = config(facts=facts, recipe="full-backward")
    assert (chosen.optimizer_in_backward, chosen.gradient_accumulation_steps, chosen.optim) == (
        True,
        1,
        "paged_adamw_8bit",
    )


def test_replay_adds_rows_by_their_share_of_answer_tokens() -> None:
    job, facts = builders.job(), builders.facts()
    plain = sizes(builders.job(forgetting=NO_REPLAY), facts).rows
    answer = facts.data.supervised_tokens
    added = (sizes(job, facts).rows - plain) * (facts.data.general_supervised_per_row or 0)
    assert replay_share(job) == 0.05 and added / (answer + added) == pytest.approx(0.05, abs=0.003)


@pytest.mark.parametrize(
    ("changes", "rows", "epochs"),
    [
        ({}, 240, 2),
        ({"goal": "task"}, 240, 3),
        ({"goal": "knowledge"}, 240, 10),
        ({"data": {"examples": 240, "domain": "code"}}, 240, 4),
        ({"data": {"examples": 240, "domain": "math"}}, 240, 4),
        ({"data": {"examples": 240, "domain": "language"}}, 240, 2),
        ({"goal": "knowledge"}, 1_000_000, 1),  # 38 million answer tokens
    ],
)
def test_epochs_by_kind_of_job(changes: dict[str, Any], rows: int, epochs: float) -> None:
    facts = builders.facts(data=builders.data_facts(rows))
    assert config(builders.job(**changes), facts).num_train_epochs == epochs
    assert config(builders.job(**changes, train={"num_train_epochs": 1.5}), facts).num_train_epochs == 1.5


def test_a_rank_alone_keeps_the_scale() -> None:
    chosen = config(builders.job(method={"name": "lora", "r": 4}))
    assert (chosen.r, chosen.lora_alpha) == (4, 8.0)
    chosen = config(builders.job(method={"name": "lora", "r": 4, "lora_alpha": 4}))
    assert (chosen.r, chosen.lora_alpha) == (4, 4.0)


def test_options_of_one_method_do_not_reach_another() -> None:
    job = builders.job(method={"name": "lora", "r": 4, "target_modules": ["q_proj"]})
    assert config(job).target_modules == ("q_proj",)
    assert config(job, recipe="qlora").r == 8 and config(job, recipe="qlora").target_modules == "all-linear"
    assert config(job, recipe="full").r is None and config(job, recipe="full").target_modules is None


def test_only_prompt_methods_learn_positions_and_only_low_rank_ones_have_a_rank() -> None:
    for recipe in RECIPES:
        chosen = config(recipe=recipe.name)
        assert (chosen.r is not None) == recipe.low_rank
        assert (chosen.num_virtual_tokens is not None) == (recipe.method in ("prompt", "prefix", "p_tuning"))
        assert chosen.method == recipe.method


OPTIONS = {
    "num_train_epochs": 3.0,
    "max_steps": 7,
    "learning_rate": 0.003,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "weight_decay": 0.1,
    "max_grad_norm": 0.5,
    "optim": "sgd",
    "per_device_train_batch_size": 3,
    "gradient_accumulation_steps": 5,
    "max_length": 64,
    "on_long": "truncate",
    "eval_steps": 2,
    "save_steps": 3,
    "save_total_limit": 9,
    "save_top_k": 4,
    "save_url": "memory://checkpoints",
    "logging_steps": 4,
    "seed": 11,
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("recipe", EXECUTABLE)
def test_what_the_job_says_of_training_is_what_is_trained(name: str, recipe: str) -> None:
    job = builders.job(train={name: OPTIONS[name]})
    if name == "optim" and not as_asked(job, BY_NAME[recipe]):
        assert BY_NAME[recipe] not in takeable(job, builders.facts(device=GPU))
    else:
        assert getattr(config(job, recipe=recipe), name) == OPTIONS[name]


def test_an_optimizer_that_makes_the_recipe_is_not_replaced() -> None:
    job = builders.job(train={"optim": "sgd"})
    facts = builders.facts(device=GPU)
    assert config(job, facts, "full-8bit").optim == "adamw_8bit" and config(job, facts, "full").optim == "sgd"


def test_every_training_option_is_tested_here_or_below() -> None:
    elsewhere = {"bf16", "bf16_stochastic_round", "dtype", "gradient_checkpointing", "optimizer_in_backward"}
    elsewhere |= {"deepspeed", "new_token_rows", "packing", "parallel", "report_to"}
    assert set(OPTIONS) | elsewhere == set(TrainOptions.model_fields)


@pytest.mark.parametrize(
    ("said", "device", "recipe", "dtype", "autocast"),
    [
        (None, True, "lora", "bf16", "bf16"),
        (None, True, "qlora", "bf16", "bf16"),
        (None, True, "full", "fp32", "bf16"),
        (None, True, "full-8bit", "fp32", "bf16"),
        (None, True, "full-bf16", "bf16", None),
        (None, False, "lora", "fp32", None),
        (False, True, "full", "fp32", None),
        (True, False, "lora", "bf16", "bf16"),
    ],
)
def test_precision_follows_the_device_unless_said(
    said: bool | None, device: bool, recipe: str, dtype: str, autocast: str | None
) -> None:
    job = builders.job(train={} if said is None else {"bf16": said})
    chosen = config(job, builders.facts(device=builders.laptop(bf16=device)), recipe)
    assert (chosen.dtype, chosen.autocast) == (dtype, autocast)


def test_all_weights_train_in_the_precision_that_the_job_says() -> None:
    facts = builders.facts(device=GPU)
    for said, left in (("bf16", {True}), ("fp32", {False}), (None, {True, False})):
        found = takeable(builders.job(method="full", train={"dtype": said}), facts)
        assert {recipe.pure_bf16 for recipe in found} == left
    assert not any(r.pure_bf16 for r in takeable(builders.job(method="full", train={"bf16": False}), facts))
    frozen = config(builders.job(train={"dtype": "fp32"}), facts, "lora")
    assert (frozen.dtype, frozen.autocast) == ("fp32", "bf16")


def test_trained_bf16_is_rounded_by_chance_on_one_device_unless_said() -> None:
    one, two = (builders.facts(device=builders.a100(count=n)) for n in (1, 2))
    plain = builders.job(train={"bf16_stochastic_round": False})
    for name in ("full-bf16", "full-backward"):
        assert config(facts=one, recipe=name).bf16_stochastic_round
        assert not config(facts=two, recipe=name).bf16_stochastic_round
        assert not config(plain, one, name).bf16_stochastic_round
    assert not any(config(facts=one, recipe=name).bf16_stochastic_round for name in ("full", "lora"))


def test_what_is_updated_in_the_backward_pass_is_neither_accumulated_nor_clipped() -> None:
    facts = builders.facts(device=GPU)
    chosen = config(builders.job(train={"optimizer_in_backward": True}), facts, "full")
    assert chosen.optimizer_in_backward and chosen.gradient_accumulation_steps == 1 and chosen.max_grad_norm == 0
    never = builders.job(method="full", train={"optimizer_in_backward": False})
    assert "full-backward" not in [recipe.name for recipe in takeable(never, facts)]
    asked = builders.job(method="full", train={"optimizer_in_backward": True})
    assert "full-offload" not in [recipe.name for recipe in takeable(asked, facts)]


def rate(recipe: str, facts: Facts, steps: int, **changes: Any) -> float:
    return learning_rate(builders.job(**changes), facts, BY_NAME[recipe], steps)


def test_the_learning_rate_of_adapters_is_ten_times_that_of_all_weights_at_most_a_thousandth() -> None:
    facts = builders.facts(builders.llama3_8b())
    full = rate("full", facts, 1000)
    assert full == pytest.approx(5e-5 * (2000 / 4096) ** 0.781, rel=0.02)
    assert rate("lora", facts, 1000) == pytest.approx(10 * full, rel=0.02)
    assert rate("lora", facts, 50) == pytest.approx(15 * full, rel=0.03)
    assert rate("lora", builders.facts(), 50, forgetting={"budget_nats": 1.0}) == 1e-3
    assert rate("full", builders.facts(), 50, forgetting={"budget_nats": 1.0}) == 1e-4


def test_qwen_has_its_own_exponent() -> None:
    llama = builders.llama3_8b()
    qwen = llama.model_copy(update={"config": llama.config | {"model_type": "qwen2"}})
    assert rate("full", builders.facts(qwen), 1000) == pytest.approx(5e-5 * (2000 / 4096) ** 0.0775, rel=0.02)


def test_a_tight_forgetting_budget_cuts_the_rate() -> None:
    facts = builders.facts(builders.llama3_8b())
    wide, tight = (rate("lora", facts, 1000, forgetting={"budget_nats": nats}) for nats in (0.1, 0.001))
    assert wide / tight == pytest.approx(threshold("forgetting_budget", "cut") ** 2, rel=0.05)


def test_no_row_is_cut_unless_the_model_cannot_see_that_far() -> None:
    assert config(facts=builders.facts(data=builders.data_facts(length=91))).max_length == 91
    assert config(facts=builders.facts(data=builders.data_facts(length=9000))).max_length == 8192
    assert config(facts=builders.facts(data=builders.data_facts(length=3))).max_length == 8
