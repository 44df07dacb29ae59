"""The worker carries a plan out: it learns, it repeats itself exactly, and it goes on where it stopped."""

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler

from rankwise import api, files
from rankwise.errors import DataError, RunError, SpaceError, TrainingError
from rankwise.model import blockwise
from rankwise.model.attach import attach
from rankwise.model.load import load_base
from rankwise.records import Failed, Note, Saved, Started, Step, Validation
from rankwise.store import Run
from tests.tiny import tiny_config
from tests.training import (
    METHOD_NAMES,
    carry_out,
    edited,
    losses,
    published,
    toy_job,
    toy_model,
    toy_rows,
    toy_run,
    trained,
    weights,
    write_jsonl,
)

methods = pytest.mark.parametrize("method", METHOD_NAMES)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def unbroken(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """One whole run of each method, with dropout where there is an adapter."""
    root = tmp_path_factory.mktemp("unbroken")
    return {name: trained(root / name, model, dropping(name)) for name in METHOD_NAMES}


def dropping(method: str) -> Any:
    return method if method == "full" else {"name": method, "lora_dropout": 0.2}


# -- it learns -------------------------------------------------------------------------------------


@methods
def test_it_learns(model: Path, tmp_path: Path, method: str) -> None:
    run = toy_run(tmp_path, model, method, train={"max_steps": 25, "save_steps": 25})
    events = carry_out(run)
    found = losses(events)
    assert len(found) == 25 and sum(found[-3:]) / 3 < 0.4 * found[0]
    held_out = [e.loss for e in events if isinstance(e, Validation)]
    assert held_out[-1] < 0.6 * held_out[0]
    assert [f.name for f in run.evidence().findings if f.level == "good"] == ["learned"]


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_looking_at_the_model_does_not_change_how_it_learns(model: Path, method: str) -> None:
    """bitsandbytes 0.50 repacks 4-bit weights on the CPU in the first forward pass in evaluation mode, for a kernel
    without a backward: after a validation, gradients no longer passed through the frozen layers."""
    base = load_base(model, dtype="bf16", four_bit=method == "qlora")
    attached = attach(base, tiny_config(method))
    for name, parameter in attached.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.05)
    ids = torch.tensor([[1, 5, 9, 40, 7, 2, 8, 30, 31]])

    def gradients() -> dict[str, torch.Tensor]:
        attached.zero_grad()
        attached.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            attached(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return {n: p.grad.clone() for n, p in attached.named_parameters() if p.grad is not None}

    before = gradients()
    attached.eval()
    with torch.inference_mode():
        attached(input_ids=ids)
    after = gradients()
    assert len(before) == len(after) == 28
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_4_bit_base_gives_the_gradient_of_its_dequantised_self(model: Path) -> None:
    def gradients(dequantised: bool) -> torch.Tensor:
        base: Any = load_base(model, dtype="fp32", four_bit=True)
        if dequantised:
            base = base.dequantize().to(torch.float32)
        attached = attach(base, tiny_config("lora" if dequantised else "qlora"))
        for name, parameter in attached.named_parameters():
            if "lora_B" in name:
                torch.nn.init.constant_(parameter, 0.05)
        ids = torch.tensor([[1, 5, 9, 40, 7, 2, 8, 30, 31]])
        attached(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return torch.cat([p.grad.flatten() for n, p in attached.named_parameters() if p.grad is not None])

    one, other = gradients(False), gradients(True)
    assert float((one - other).norm() / other.norm()) < 1e-3


def test_documents_that_see_each_other_end_a_run_before_its_first_step(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = toy_run(tmp_path, model)
    config = run.plan().verdict.config
    assert config is not None and config.packing
    monkeypatch.setattr(blockwise, "spans_of", lambda ids, rows: [(r, 0, ids.shape[1]) for r in range(rows)])
    with pytest.raises(TrainingError, match="the second of two packed documents sees the first"):
        carry_out(run)
    assert not losses(run.events()) and run.state() == "failed"


def test_a_packed_run_learns_what_an_unpacked_one_does(model: Path, tmp_path: Path) -> None:
    """Same rows in each step, so the same losses within the rounding of bf16, from fewer tokens computed."""
    runs = [trained(tmp_path / str(p), model, train={"packing": p, "max_length": 64}) for p in (True, False)]
    packed, plain = ([e for e in run.events() if isinstance(e, Step)] for run in runs)
    assert [s.supervised_tokens for s in packed] == [s.supervised_tokens for s in plain]
    assert [s.loss for s in packed] == pytest.approx([s.loss for s in plain], rel=0.05)
    found = [run.evidence() for run in runs]
    assert found[0].padding_share == 0.0 and (found[1].padding_share or 0) > 0.02
    assert all(0 < (e.overhead_share or 0) < 1 for e in found)


# -- it repeats itself -----------------------------------------------------------------------------


@methods
def test_same_seed_same_losses_and_same_bytes(
    unbroken: dict[str, Run], model: Path, tmp_path: Path, method: str
) -> None:
    first = unbroken[method]
    second = trained(tmp_path, model, dropping(method))
    assert losses(first.events()) == losses(second.events())
    assert [e.loss for e in first.events() if isinstance(e, Validation)] == [
        e.loss for e in second.events() if isinstance(e, Validation)
    ]
    assert weights(published(first)) == weights(published(second))


def test_another_seed_is_another_run(unbroken: dict[str, Run], model: Path, tmp_path: Path) -> None:
    other = trained(tmp_path, model, dropping("lora"), train={"seed": 1})
    assert losses(unbroken["lora"].events()) != losses(other.events())


# -- it goes on where it stopped -------------------------------------------------------------------


@methods
@pytest.mark.parametrize("step", [3, 4])  # between checkpoints, and at one
def test_stopped_and_resumed_is_the_unbroken_run(
    unbroken: dict[str, Run], model: Path, tmp_path: Path, method: str, step: int
) -> None:
    run = toy_run(tmp_path, model, dropping(method))
    events = carry_out(run, stop_after=step)
    assert events[-1].event == "stopped" and events[-1].step == step and run.state() == "stopped"
    assert (run.checkpoints / f"checkpoint-{step}").is_dir()
    assert not published(run).exists() and not run.artifact_path.exists()
    again = carry_out(run, resume=True)
    assert next(e for e in again if isinstance(e, Started)).step == step
    whole = unbroken[method]
    assert losses(run.events()) == losses(whole.events())
    assert weights(published(run)) == weights(published(whole))
    assert [(e.step, e.loss) for e in run.events() if isinstance(e, Validation)] == [
        (e.step, e.loss) for e in whole.events() if isinstance(e, Validation)
    ]
    assert run.evidence().final_loss == whole.evidence().final_loss
    assert run.state() == "finished"


def test_a_file_named_stop_stops(unbroken: dict[str, Run], model: Path, tmp_path: Path) -> None:
    run = toy_run(tmp_path, model, dropping("lora"))
    run.stop_path.touch()  # left over from before: the person wants to train now
    events = []
    import threading

    from rankwise.worker import work

    for event in work(run, resume=False, stop_signal=threading.Event()):
        events.append(event)
        if isinstance(event, Step) and event.step == 2:
            run.stop_path.touch()
    assert events[-1].event == "stopped" and "stop" in events[-1].reason and events[-1].step in (2, 3)
    carry_out(run, resume=True)
    assert not run.stop_path.exists()
    assert losses(run.events()) == losses(unbroken["lora"].events())
    assert weights(run.adapter) == weights(unbroken["lora"].adapter)


def test_stopped_again_and_again(unbroken: dict[str, Run], model: Path, tmp_path: Path) -> None:
    run = toy_run(tmp_path, model, dropping("lora"))
    carry_out(run, stop_after=1)
    for step in (2, 3, 5):
        carry_out(run, resume=True, stop_after=step)
    carry_out(run, resume=True)
    assert losses(run.events()) == losses(unbroken["lora"].events())
    assert weights(run.adapter) == weights(unbroken["lora"].adapter)


def test_resumed_before_the_first_checkpoint_starts_over(unbroken: dict[str, Run], model: Path, tmp_path: Path) -> None:
    run = toy_run(tmp_path, model, dropping("lora"))
    road = iter_until_step(run, 1)
    road.close()  # as a kill would leave it: events, no checkpoint, no `stopped`
    assert run.state() == "killed"
    with run.events_path.open("a") as file:
        file.write('{"time":"2026-01-01T00:00:00","event":"st')  # and a line cut in the middle
    events = carry_out(run, resume=True)
    assert next(e for e in events if isinstance(e, Started)).step == 0
    assert losses(run.events()) == losses(unbroken["lora"].events())
    assert [e.step for e in run.events() if isinstance(e, Validation)] == [0, 2, 4, 6]
    assert weights(run.adapter) == weights(unbroken["lora"].adapter)


def test_killed_after_the_last_step_only_publishes(unbroken: dict[str, Run], model: Path, tmp_path: Path) -> None:
    run = toy_run(tmp_path, model, dropping("lora"))
    road = iter_until_step(run, 6)
    for event in road:
        if isinstance(event, Saved):
            break
    road.close()
    assert run.state() == "killed" and not run.adapter.exists()
    events = carry_out(run, resume=True)
    assert not losses(events) and events[-1].event == "finished"
    assert weights(run.adapter) == weights(unbroken["lora"].adapter)
    assert run.evidence().steps == 6


def iter_until_step(run: Run, step: int) -> Any:
    """The road of a run, standing just behind `step`."""
    import threading

    from rankwise.worker import work

    road = work(run, resume=False, stop_signal=threading.Event())
    for event in road:
        if isinstance(event, Step) and event.step == step:
            return road
    raise AssertionError(f"step {step} was never taken")


def test_the_time_of_a_resumed_run_is_that_of_all_its_steps(model: Path, tmp_path: Path) -> None:
    run = toy_run(tmp_path, model)
    carry_out(run, stop_after=3)
    carry_out(run, resume=True)
    steps = [e.seconds for e in run.events() if isinstance(e, Step)]
    assert run.evidence().train_seconds == pytest.approx(sum(steps))


# -- what it leaves behind -------------------------------------------------------------------------


def greedy(model: Any, tokenizer: Any, question: str) -> str:
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    out = model.eval().generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


QUESTIONS = ["500 yes", "501 hours please", "502 prices"]


def test_the_adapter_loads_with_plain_peft_and_the_merged_model_with_plain_transformers(
    tmp_path: Path,
) -> None:
    model = toy_model(tmp_path / "base", dtype="fp32")  # in bf16 a merge is rounded, and a near tie may fall otherwise
    run = trained(tmp_path, model, train={"max_steps": 25, "save_steps": 25, "bf16": False})
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, run.adapter)
    merged = AutoModelForCausalLM.from_pretrained(api.merge(run), dtype=torch.float32)
    ours = api.chat(run)
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (run.adapter, run.model)]
    for question in QUESTIONS:
        said = "".join(ours([{"role": "user", "content": question}], 12))
        assert said == greedy(adapted, tokenizers[0], question) == greedy(merged, tokenizers[1], question)


def test_the_full_model_loads_with_plain_transformers(model: Path, tmp_path: Path) -> None:
    run = trained(tmp_path, model, "full", train={"max_steps": 25, "save_steps": 25, "bf16": False})
    plain = AutoModelForCausalLM.from_pretrained(run.model)
    assert plain.dtype == torch.bfloat16  # as the base
    ours, tokenizer = api.chat(run), AutoTokenizer.from_pretrained(run.model)
    for question in QUESTIONS:
        assert "".join(ours([{"role": "user", "content": question}], 12)) == greedy(plain.float(), tokenizer, question)


@methods
@pytest.mark.parametrize("stored", ["bf16", "fp32"])
@pytest.mark.parametrize("bf16", [True, False])
def test_what_is_reloaded_is_what_was_trained(tmp_path: Path, method: str, stored: Any, bf16: bool) -> None:
    """In every precision of base and arithmetic; the proof compares logits with those at the end of training."""
    run = trained(tmp_path, toy_model(tmp_path / "m", dtype=stored), method, train={"bf16": bf16})
    config = run.plan().verdict.config
    assert config is not None and config.autocast == ("bf16" if bf16 else None)
    assert bf16 or config.dtype == "fp32"
    outcome, artifact = api.verify(run)
    assert outcome.passed and artifact is not None, [c for c in outcome.checks if not c.passed]


@methods
def test_checkpointing_gives_the_same_losses(model: Path, tmp_path: Path, method: str) -> None:
    found = [
        losses(
            carry_out(toy_run(tmp_path / str(on), model, method, train={"gradient_checkpointing": on, "bf16": False}))
        )
        for on in (True, False)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@methods
def test_the_best_is_published_not_the_last(model: Path, tmp_path: Path, method: str) -> None:
    """The held-out rows contradict the training rows: the surer the model, the worse it does on them."""
    wrong = [
        {"messages": [{"role": "user", "content": f"{i} yes"}, {"role": "assistant", "content": "prices."}]}
        for i in range(6)
    ]
    write_jsonl(tmp_path / "held_out.jsonl", wrong)
    data = {"train": "train.jsonl", "validation": "held_out.jsonl"}
    train = {"max_steps": 30, "save_steps": 2, "eval_steps": 2, "save_total_limit": 1, "bf16": False}
    run = toy_run(tmp_path, model, method, data=data, train=train)
    events = carry_out(run)
    held_out = {e.step: e.loss for e in events if isinstance(e, Validation) and e.step > 0}
    best = min(held_out, key=lambda s: (held_out[s], -s))
    assert best < 30, "the toy run did not get worse"
    assert {p.name for p in run.checkpoints.glob("checkpoint-*")} == {f"checkpoint-{best}", "checkpoint-30"}
    assert {n: (run.checkpoints / n).resolve().name for n in ("best", "last")} == {
        "best": f"checkpoint-{best}",
        "last": "checkpoint-30",
    }
    assert any(isinstance(e, Note) and f"the artifact holds step {best}" in e.text for e in events)
    path = run.checkpoints / f"checkpoint-{best}"
    if method == "full":
        return  # published in the base's precision, so the bytes differ
    assert weights(path) == weights(run.adapter)


# -- the plan is executed as it stands -------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "constant_with_warmup"])
def test_steps_rates_and_batches_are_those_of_the_plan(model: Path, tmp_path: Path, schedule: str) -> None:
    run = toy_run(
        tmp_path,
        model,
        train={
            "max_steps": 7,
            "lr_scheduler_type": schedule,
            "warmup_steps": 2,
            "learning_rate": 3e-3,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 3,
            "eval_steps": 3,
            "save_steps": 2,
            "save_total_limit": 1,
        },
    )
    plan, events = run.plan(), carry_out(run)
    config = plan.verdict.config
    assert config is not None
    started = next(e for e in events if isinstance(e, Started))
    steps = [e for e in events if isinstance(e, Step)]
    assert started.max_steps == config.max_steps == 7 == len(steps) and started.plan_hash == plan.content_hash()
    assert (started.trainable_params, started.total_params) == (
        plan.chosen().trainable_params,
        plan.chosen().total_params,
    )
    reference = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.learning_rate)
    scheduler = get_scheduler(config.lr_scheduler_type, reference, config.warmup_steps, config.max_steps)
    for step in steps:
        assert step.learning_rate == scheduler.get_last_lr()[0]
        reference.step()
        scheduler.step()
    assert [e.step for e in events if isinstance(e, Validation)] == [0, 3, 6, 7]
    assert [e.step for e in events if isinstance(e, Saved)] == [2, 4, 6, 7]
    # 24 rows, a quarter held out: 18 rows, 6 a step; a whole epoch's tokens pass every 3 steps
    facts = plan.facts.data
    assert facts.rows == 18 and config.effective_batch == 6
    assert sum(s.tokens for s in steps[:3]) == facts.tokens == sum(s.tokens for s in steps[3:6])
    assert sum(s.supervised_tokens for s in steps[:3]) == facts.supervised_tokens
    assert steps[2].epoch == 1.0 and [s.step for s in steps] == list(range(1, 8))


def test_the_method_runs_as_planned(model: Path, tmp_path: Path) -> None:
    choice = {"name": "lora", "r": 3, "lora_alpha": 5.0, "lora_dropout": 0.1, "target_modules": ["q_proj", "down_proj"]}
    run = trained(tmp_path, model, choice, train={"max_steps": 1})
    saved = json.loads((run.adapter / "adapter_config.json").read_text())
    assert (saved["r"], saved["lora_alpha"], saved["lora_dropout"]) == (3, 5.0, 0.1)
    assert sorted(saved["target_modules"]) == ["down_proj", "q_proj"]


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "sgd"])
def test_every_optimizer_trains_and_resumes(model: Path, tmp_path: Path, optim: str) -> None:
    train = {"optim": optim, "weight_decay": 0.1, "max_grad_norm": 0.5}
    whole = losses(carry_out(toy_run(tmp_path / "a", model, train=train)))
    run = toy_run(tmp_path / "b", model, train=train)
    carry_out(run, stop_after=3)
    carry_out(run, resume=True)
    assert losses(run.events()) == whole and whole[-1] < whole[0]


def test_general_rows_are_replayed_in_the_planned_share(model: Path, tmp_path: Path) -> None:
    from tests.training import toy_rows, write_jsonl

    tmp_path.joinpath("job").mkdir()
    write_jsonl(tmp_path / "job" / "general.jsonl", toy_rows(40, seed=9))
    data = {"train": "train.jsonl", "validation": 0.25, "general": {"path": "general.jsonl", "share": 0.3}}
    run = toy_run(tmp_path / "job", model, data=data, train={"max_steps": None, "num_train_epochs": 1.0})
    events = carry_out(run)
    task = run.plan().facts.data.supervised_tokens
    steps = [e for e in events if isinstance(e, Step)]
    got = sum(s.supervised_tokens for s in steps) - task
    assert abs(got - 0.3 / 0.7 * task) <= 12


def test_long_rows_are_counted_and_said(model: Path, tmp_path: Path) -> None:
    lengths = toy_run(tmp_path / "a", model).plan().facts.data
    middle = round(lengths.mean_length)
    run = toy_run(tmp_path / "b", model, train={"max_length": middle, "on_long": "drop"})
    facts = run.plan().facts.data
    assert facts.long_rows > 0
    notes = [e.text for e in carry_out(run) if isinstance(e, Note)]
    assert any(
        f"{facts.long_rows} of {facts.rows + facts.dropped_rows} training rows are longer than {middle} tokens" in n
        and f"{facts.dropped_rows} rows dropped" in n
        for n in notes
    )
    assert not any(e.event == "note" and "longer than" in e.text for e in carry_out(toy_run(tmp_path / "c", model)))


# -- what goes wrong -------------------------------------------------------------------------------


@methods
@pytest.mark.parametrize("eval_steps", [1, 50])
def test_a_loss_that_is_not_finite_is_a_failed_run(model: Path, tmp_path: Path, method: str, eval_steps: int) -> None:
    run = toy_run(
        tmp_path, model, method, train={"max_steps": 50, "save_steps": 50, "max_grad_norm": 1e9, "optim": "sgd"}
    )
    carry_out(run, stop_after=2)
    assert run.state() == "stopped"
    before = {p: p.read_bytes() for p in run.checkpoints.rglob("*") if p.is_file()}
    edited(run, eval_steps=eval_steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rankwise.train.checkpoints.Checkpoints.restore", _restored_with_rate(1e30))
        with pytest.raises(TrainingError) as error:
            carry_out(run, resume=True)
    assert error.value.exit_code == 1 and "learning_rate" in error.value.fix
    last = run.raw_events()[-1]
    assert isinstance(last, Failed) and last.what == error.value.what
    assert run.state() == "failed"
    assert {p: p.read_bytes() for p in run.checkpoints.rglob("*") if p.is_file()} == before
    edited(run, eval_steps=2, max_steps=4)
    carry_out(run, resume=True)
    assert run.state() == "finished"


def _restored_with_rate(rate: float) -> Any:
    """The real restore, after which the schedule is far too high: how a run diverges after good checkpoints."""
    from rankwise.train.checkpoints import Checkpoints

    real = Checkpoints.restore

    def restore(self: Checkpoints, step: int, engine: Any, scheduler: Any) -> Any:
        found = real(self, step, engine, scheduler)
        for group in engine.optimizer.param_groups:
            group["lr"] = rate
        scheduler.base_lrs = [rate]
        return found

    return restore


@methods
def test_an_absurd_learning_rate_fails_in_one_sentence(model: Path, tmp_path: Path, method: str) -> None:
    run = toy_run(tmp_path, model, method, train={"learning_rate": 1e30, "max_steps": 10})
    with pytest.raises(TrainingError) as error:
        carry_out(run)
    assert "nan" in error.value.what or "inf" in error.value.what
    assert run.state() == "failed" and isinstance(run.raw_events()[-1], Failed)


def test_a_full_disk_is_a_failed_run_that_resumes(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy_run(tmp_path, model)
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
        with pytest.raises(SpaceError, match="not enough disk for a checkpoint"):
            carry_out(run)
    assert run.state() == "failed" and not list(run.checkpoints.glob("*"))
    carry_out(run, resume=True)
    assert losses(run.events()) == losses(carry_out(toy_run(tmp_path / "b", model)))


def test_one_writer_at_a_time(model: Path, tmp_path: Path) -> None:
    run = toy_run(tmp_path, model)
    with run.lock(), pytest.raises(RunError, match="in use by another process"):
        carry_out(run)
    assert run.state() == "planned"


def test_events_are_on_disk_before_they_are_told(model: Path, tmp_path: Path) -> None:
    import threading

    from rankwise.worker import work

    run = toy_run(tmp_path, model, train={"max_steps": 2})
    for count, event in enumerate(work(run, resume=False, stop_signal=threading.Event()), 1):
        assert run.raw_events()[-1] == event and len(run.raw_events()) == count
    times = [e.time for e in run.raw_events()]
    assert all(a <= b for a, b in pairwise(times))


def test_a_second_folder_is_not_touched(model: Path, tmp_path: Path) -> None:
    """Training writes into its run folder and nowhere else."""
    run = toy_run(tmp_path / "a", model)
    before = {p: p.stat().st_mtime_ns for p in [*model.rglob("*"), *tmp_path.glob("a/*")] if p.is_file()}
    carry_out(run)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"job.yaml", "train.jsonl", "run"}
    assert not [p for p in run.folder.rglob("*") if p.name.startswith(".") and p.name != ".lock"]


def test_the_job_of_a_toy_run_is_the_job_that_is_stored(model: Path, tmp_path: Path) -> None:
    run = toy_run(tmp_path, model)
    again = api.load_job(run.folder / "job.yaml", {})
    assert again.content_hash() == run.plan().job_hash == api.load_job(toy_job(tmp_path, model), {}).content_hash()


def test_rows_that_changed_after_the_plan_are_not_trained_on(tmp_path: Path, model: Path) -> None:
    run = toy_run(tmp_path, model)
    write_jsonl(tmp_path / "train.jsonl", toy_rows(24, seed=1))
    with pytest.raises(DataError, match="not those that the plan was made for"):
        carry_out(run)


def test_a_given_chat_template_is_trained_published_and_proven(tmp_path: Path, model: Path) -> None:
    from tests.tiny import CHATML

    mine = CHATML + "{# mine #}"
    (tmp_path / "mine.jinja").write_text(mine)
    run = trained(tmp_path, model, chat_template="mine.jinja", train={"max_steps": 2})
    assert str(tmp_path / "mine.jinja") in run.plan().facts.data.files
    assert (run.adapter / "chat_template.jinja").read_text() == mine
    proven, artifact = api.verify(run)
    assert proven.passed and artifact is not None
    assert artifact.lineage.chat_template == run.plan().facts.model.template_hash
    merged = api.merge(run)
    assert (merged / "chat_template.jinja").read_text() == mine


def test_rows_with_calls_and_reasoning_are_trained_on(tmp_path: Path, model: Path) -> None:
    from tests.text.published import QWEN3

    (tmp_path / "mine.jinja").write_text(QWEN3)
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{number}?"},
                {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"n": number}}]},
                {"role": "tool", "content": str(number)},
                {"role": "assistant", "content": "yes.", "reasoning_content": "it said so"},
                {"role": "user", "content": "sure?"},
                {"role": "assistant", "content": "sure.", "reasoning_content": "I am"},
            ]
        }
        for number in range(12)
    ]
    write_jsonl(tmp_path / "train.jsonl", rows)
    run = toy_run(tmp_path, model, chat_template="mine.jinja", train={"max_steps": 2, "max_length": 256})
    notes = [event.text for event in carry_out(run) if isinstance(event, Note)]
    assert "12 of them in several texts" in run.plan().facts.data.source
    assert any("conversations are trained as several texts" in text for text in notes)
    assert run.state() == "finished"
