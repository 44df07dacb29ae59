"""How a job forces the way devices share the work, and its own DeepSpeed JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from rankwise.decide.choose import require_sound_method
from rankwise.decide.deepspeed import own_settings, with_deepspeed
from rankwise.decide.parallel import carries, not_carried_out, spreads_of
from rankwise.decide.recipes import BY_NAME, RECIPES
from rankwise.errors import JobError
from rankwise.observe.deepspeed import read_deepspeed
from rankwise.records import Facts, Job
from tests.builders import job
from tests.decide import worlds

FORCED = ("ddp", "zero1", "zero2", "zero3", "fsdp")


def world(count: int = 2, deepspeed: dict[str, Any] | None = None) -> Facts:
    return worlds.world(device=worlds.card(count=count)).model_copy(update={"deepspeed": deepspeed})


def forcing(parallel: str | None, method: str | None = None, **train: Any) -> Job:
    return job(method=method, train={"parallel": parallel, **train})


@pytest.mark.parametrize("parallel", FORCED)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_is_forced_is_planned_and_said(parallel: str, method: str) -> None:
    plan = worlds.plan_of(forcing(parallel, method), world())
    verdict = plan.verdict
    assert (verdict.parallel, verdict.method, verdict.executable) == (parallel, method, True)
    told = [w for w in plan.warnings if w.startswith("train.parallel")]
    assert told == (
        [] if parallel == "ddp" else [f"train.parallel: {parallel} is the job's, the plan would try ddp first"]
    )
    config = verdict.config
    assert config is not None and (config.deepspeed is not None) == parallel.startswith("zero")
    if parallel.startswith("zero"):
        assert config.deepspeed is not None
        assert config.deepspeed["zero_optimization"]["stage"] == int(parallel[-1])
        assert (config.dtype, config.autocast) == ("bf16", None)  # DeepSpeed keeps the fp32 ones itself


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.name)
@pytest.mark.parametrize("parallel", FORCED)
def test_what_is_not_carried_out_is_never_tried(recipe: Any, parallel: str) -> None:
    spreads = spreads_of(forcing(parallel), world(), recipe)
    assert spreads in ((parallel,), ())
    if carries(recipe.method, parallel) is not None or recipe.shards == ():
        assert spreads == ()


@pytest.mark.parametrize(
    ("method", "parallel"), [("qlora", "zero3"), ("qlora", "fsdp"), ("dora", "zero3"), ("ia3", "fsdp")]
)
def test_a_method_that_is_not_trained_in_this_way_is_refused_by_name(method: str, parallel: str) -> None:
    with pytest.raises(JobError, match=f"train.parallel asks for {parallel}, and {method} is not trained under it: "):
        require_sound_method(forcing(parallel, method), world())


def test_one_device_shares_with_nobody() -> None:
    with pytest.raises(JobError, match=r"train\.parallel asks for fsdp, and this job has one device"):
        require_sound_method(forcing("fsdp"), world(count=1))


def test_states_that_cannot_be_split_are_not_carried_out() -> None:
    config = worlds.plan_of(forcing("fsdp", "full"), world()).verdict.config
    assert config is not None and not_carried_out("full", "fsdp", config) is None
    eight = config.model_copy(update={"optim": "adamw_8bit"})
    assert not_carried_out("full", "ddp", eight) is None
    assert "adamw_8bit under fsdp" in str(not_carried_out("full", "fsdp", eight))


# -- a person's own DeepSpeed JSON -----------------------------------------------------------------

OWN: dict[str, Any] = {
    "zero_optimization": {"stage": 3, "overlap_comm": False, "reduce_bucket_size": "auto"},
    "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": 3,
    "train_batch_size": 12,
    "gradient_clipping": 0.5,
    "optimizer": {"type": "AdamW", "params": {"lr": 3e-4, "betas": "auto", "weight_decay": 0.1}},
}


def changed(**changes: Any) -> dict[str, Any]:
    return OWN | changes


def test_what_the_file_says_is_what_is_planned() -> None:
    plan = worlds.plan_of(forcing(None, "full"), world(deepspeed=OWN))
    config = plan.verdict.config
    assert plan.verdict.parallel == "zero3" and config is not None
    assert config.deepspeed == own_settings(OWN) and "optimizer" not in config.deepspeed
    assert (config.per_device_train_batch_size, config.gradient_accumulation_steps) == (2, 3)
    assert (config.max_grad_norm, config.learning_rate, config.weight_decay) == (0.5, 3e-4, 0.1)
    assert "train.deepspeed: zero3 is the job's, the plan would try ddp first" in plan.warnings
    assert plan.job.train.learning_rate is None  # what the person wrote stays what they wrote


@pytest.mark.parametrize(
    ("settings", "train", "said"),
    [
        (
            OWN,
            {"learning_rate": 1e-4},
            r"optimizer.params.lr to 0.0003, and the job says 0.0001 \(train.learning_rate\)",
        ),
        (OWN, {"max_grad_norm": 1.0}, r"gradient_clipping to 0.5, and the job says 1.0 \(train.max_grad_norm\)"),
        (OWN, {"per_device_train_batch_size": 4}, "train_micro_batch_size_per_gpu to 2, and the job says 4"),
        (changed(train_batch_size=16), {}, "train_batch_size to 16, and the job says 12"),
        (changed(gradient_accumulation_steps="auto"), {}, "train_batch_size to 12, and not how many rows"),
        (changed(bf16={"enabled": True}), {"bf16": False}, "bf16.enabled to True, and the job says False"),
        (changed(fp16={"enabled": True}), {}, "fp16.enabled"),
        (changed(scheduler={"type": "WarmupLR"}), {}, "sets scheduler: the schedule is the job's"),
        (changed(optimizer={"type": "Lion"}), {}, "the optimizer Lion"),
        (changed(optimizer={"type": "Adam", "params": {"betas": [0.9, 0.95]}}), {}, r"betas to \[0.9, 0.95\]"),
        (changed(zero_optimization={"stage": 3, "offload_param": {"device": "cpu"}}), {}, "offload_param"),
    ],
)
def test_what_contradicts_the_job_or_is_not_carried_out_is_refused(
    settings: dict[str, Any], train: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=said):
        with_deepspeed(forcing(None, "full", **train), world(deepspeed=settings))


def test_auto_takes_the_runs_values() -> None:
    auto = {"zero_optimization": {"stage": 2}, "gradient_clipping": "auto", "train_batch_size": "auto"}
    said = forcing(None, "full", learning_rate=1e-4)
    assert with_deepspeed(said, world(deepspeed=auto)).train == said.train


def test_stage_and_parallel_must_agree() -> None:
    with pytest.raises(JobError, match=r"train\.parallel is zero2, and the file of train\.deepspeed says stage 3"):
        require_sound_method(forcing("zero2", "full"), world(deepspeed=OWN))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"zero_optimization": {"stage": 3},\n x}', "ds.json:2: not JSON"),
        ('{"zero_optimization": {"stage": 0}}', "stage is 0"),
        ("[]", "stage is None"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "ds.json"
    path.write_text(text)
    with pytest.raises(JobError, match=said):
        read_deepspeed(path)
    path.write_text(json.dumps(OWN))
    assert read_deepspeed(path) == OWN


def test_recipes_that_run_on_one_device_alone_say_so() -> None:
    assert spreads_of(forcing("ddp"), world(), BY_NAME["full-backward"]) == ()
