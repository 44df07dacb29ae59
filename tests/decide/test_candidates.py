"""Configurations that can be executed as they stand: sizes that agree, what the job says wins."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.decide.candidates import candidates, configure, learning_rate, replay_share, sizes
from rankwise.methods import METHODS
from rankwise.records import Facts, Job, TrainConfig, TrainOptions
from tests import builders

CPU, GPU = builders.laptop(), builders.a100()


def config(job: Job | None = None, facts: Facts | None = None, method: str = "lora") -> TrainConfig:
    return configure(job or builders.job(), facts or builders.facts(), METHODS[method], gradient_checkpointing=False)


def test_every_method_is_a_candidate_with_and_without_recomputation() -> None:
    found = candidates(builders.job(), builders.facts())
    assert [c.id for c in found] == [
        "full",
        "full-checkpointing",
        "lora-r8",
        "lora-r8-checkpointing",
        "qlora-r8",
        "qlora-r8-checkpointing",
    ]
    assert all(c.parallel == "none" for c in found)


@pytest.mark.parametrize("said", [True, False])
def test_recomputation_that_the_job_decides_is_not_varied(said: bool) -> None:
    found = candidates(builders.job(train={"gradient_checkpointing": said}), builders.facts())
    assert len(found) == len(METHODS) and all(c.config.gradient_checkpointing == said for c in found)


def test_several_devices_work_side_by_side() -> None:
    found = candidates(builders.job(), builders.facts(device=builders.a100(count=4)))
    assert {c.parallel for c in found} == {"ddp"}


batches = st.one_of(st.none(), st.integers(1, 64))


@given(
    st.integers(1, 200_000),
    batches,
    batches,
    st.sampled_from([1, 4]),
    st.booleans(),
    st.sampled_from([1.0, 2.0, 3.0]),
)
def test_the_steps_pass_over_the_rows_as_often_as_said(
    rows: int, micro: int | None, accumulation: int | None, count: int, gpu: bool, epochs: float
) -> None:
    device = (GPU if gpu else CPU).model_copy(update={"count": count})
    facts = builders.facts(data=builders.data_facts(rows), device=device)
    said: dict[str, Any] = {"num_train_epochs": epochs}
    said |= {"per_device_train_batch_size": micro} if micro else {}
    said |= {"gradient_accumulation_steps": accumulation} if accumulation else {}
    job = builders.job(train=said, forgetting={"replay_allowed": False})
    chosen = config(job, facts)
    seen = chosen.max_steps * chosen.effective_batch * count
    assert seen - chosen.effective_batch * count < rows * epochs <= seen
    assert micro in (None, chosen.per_device_train_batch_size)
    assert accumulation in (None, chosen.gradient_accumulation_steps)
    assert chosen.effective_batch <= rows or micro or accumulation


@pytest.mark.parametrize(("rows", "batch"), [(1, 1), (5, 4), (50, 8), (400, 8), (800, 16), (1600, 32), (100_000, 32)])
def test_the_batch_leaves_about_a_hundred_steps(rows: int, batch: int) -> None:
    facts = builders.facts(data=builders.data_facts(rows))
    assert config(builders.job(forgetting={"replay_allowed": False}), facts).effective_batch == batch


@pytest.mark.parametrize(("length", "at_once"), [(16, 32), (92, 4), (300, 1), (2_000, 1)])
def test_a_cpu_takes_as_many_rows_at_once_as_fill_512_tokens_and_a_gpu_eight(length: int, at_once: int) -> None:
    data = builders.data_facts(10_000, length)
    cpu, gpu = (config(facts=builders.facts(data=data, device=d)) for d in (CPU, GPU))
    assert (cpu.per_device_train_batch_size, cpu.gradient_accumulation_steps) == (at_once, 32 // at_once)
    assert (gpu.per_device_train_batch_size, gpu.gradient_accumulation_steps) == (8, 4)


def test_the_rank_grows_with_what_the_data_teaches_up_to_its_limit() -> None:
    ranks = [config(facts=builders.facts(data=builders.data_facts(n))).r for n in (240, 50_000, 200_000, 10**9)]
    assert ranks[0] == 8
    assert ranks == sorted(ranks)
    assert ranks[1] > 8
    assert ranks[-1] == 128  # k_proj of the embedded model has 192 outputs, and so no higher rank


def test_replay_adds_rows_by_their_share_of_answer_tokens() -> None:
    job, facts = builders.job(), builders.facts()
    plain = sizes(builders.job(forgetting={"replay_allowed": False}), facts).rows
    answer = facts.data.supervised_tokens
    added = (sizes(job, facts).rows - plain) * (facts.data.general_supervised_per_row or 0)
    assert replay_share(job) == 0.05 and added / (answer + added) == pytest.approx(0.05, abs=0.003)


def test_facts_are_seen_often() -> None:
    assert config(builders.job(goal="knowledge")).num_train_epochs == 10
    assert config().num_train_epochs == 2


def test_facts_and_free_text_get_a_higher_rank_than_a_format() -> None:
    assert config().r == 8
    assert config(builders.job(goal="knowledge")).r == 16
    assert config(builders.job(format=None)).r == 16


def test_a_rank_alone_keeps_the_scale() -> None:
    chosen = config(builders.job(method={"name": "lora", "r": 4}))
    assert (chosen.r, chosen.lora_alpha) == (4, 8.0)
    chosen = config(builders.job(method={"name": "lora", "r": 4, "lora_alpha": 4}))
    assert (chosen.r, chosen.lora_alpha) == (4, 4.0)


def test_options_of_one_method_do_not_reach_another() -> None:
    job = builders.job(method={"name": "lora", "r": 4})
    assert config(job, method="qlora").r == 8 and config(job, method="full").r is None


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
    "logging_steps": 4,
    "seed": 11,
}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_the_job_says_of_training_is_what_is_trained(name: str) -> None:
    for method in METHODS:
        assert getattr(config(builders.job(train={name: OPTIONS[name]}), method=method), name) == OPTIONS[name]


def test_every_training_option_is_tested_here_or_below() -> None:
    elsewhere = {"bf16", "gradient_checkpointing", "report_to"}
    assert set(OPTIONS) | elsewhere == set(TrainOptions.model_fields)


@pytest.mark.parametrize(
    ("said", "device", "method", "dtype", "autocast"),
    [
        (None, True, "lora", "bf16", "bf16"),
        (None, True, "qlora", "bf16", "bf16"),
        (None, True, "full", "fp32", "bf16"),
        (None, False, "lora", "fp32", None),
        (False, True, "full", "fp32", None),
        (True, False, "lora", "bf16", "bf16"),
    ],
)
def test_precision_follows_the_device_unless_said(
    said: bool | None, device: bool, method: str, dtype: str, autocast: str | None
) -> None:
    job = builders.job(train={} if said is None else {"bf16": said})
    chosen = config(job, builders.facts(device=builders.laptop(bf16=device)), method)
    assert (chosen.dtype, chosen.autocast) == (dtype, autocast)


def test_the_learning_rate_of_adapters_is_ten_times_that_of_all_weights_at_most_a_thousandth() -> None:
    facts = builders.facts(builders.llama3_8b())
    full, lora = (learning_rate(facts, METHODS[m], 1000) for m in ("full", "lora"))
    assert lora == pytest.approx(10 * full, rel=0.02)
    assert learning_rate(facts, METHODS["lora"], 50) == pytest.approx(15 * full, rel=0.03)
    assert learning_rate(builders.facts(), METHODS["lora"], 50) == 1e-3
    assert learning_rate(builders.facts(), METHODS["full"], 50) == 1e-4


def test_no_row_is_cut_unless_the_model_cannot_see_that_far() -> None:
    assert config(facts=builders.facts(data=builders.data_facts(length=91))).max_length == 91
    assert config(facts=builders.facts(data=builders.data_facts(length=9000))).max_length == 8192
    assert config(facts=builders.facts(data=builders.data_facts(length=3))).max_length == 8
