"""A run that is watched: what it sees is what its artifact is, what it does about it, and how it goes on."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rankwise import api
from rankwise.errors import DataError, JobError, ModelError, RankwiseError
from rankwise.model.attach import load_adapter
from rankwise.model.likelihood import row_losses
from rankwise.model.load import load_base
from rankwise.records import Acted, Event, Finished, Saved, Step, Watched
from rankwise.store import Run
from rankwise.text.ability import ability_sets
from rankwise.text.template import ChatText
from rankwise.worker import work
from tests.training import RATES, carry_out, losses, published, toy_job, toy_run, weights, write_jsonl
from tests.watched import ability_files, knowing_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return knowing_model(tmp_path_factory.mktemp("model"))


# The first step of a linear warm-up has a rate of 0, so a run is still what it was after it, and soon is not.
RISING = {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 4, "bf16": False}


def watched_run(folder: Path, model: Path, method: Any = "lora", **changes: Any) -> Run:
    """Looks after every step, and forgets soon."""
    train = {**RISING, **changes.pop("train", {})}
    forgetting = {"watch_steps": 1, **ability_files(folder), **changes.pop("forgetting", {})}
    return toy_run(folder, model, method, train=train, forgetting=forgetting, **changes)


def looks(events: list[Event]) -> list[Watched]:
    return [e for e in events if isinstance(e, Watched)]


def told(run: Run) -> list[Any]:
    """What a run saw and did, without clocks."""
    kinds = (Watched, Acted, Step)
    return [e.model_dump(exclude={"time", "seconds", "model_seconds"}) for e in run.events() if isinstance(e, kinds)]


def acts(run: Run) -> list[Acted]:
    return [e for e in run.events() if isinstance(e, Acted)]


@pytest.fixture(scope="module")
def warned(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """One whole run of each kind of method that is only warned about."""
    root = tmp_path_factory.mktemp("warned")
    runs = {name: watched_run(root / name, model, name) for name in ("lora", "full")}
    for run in runs.values():
        carry_out(run)
    return runs


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_that_forgets_is_seen_to_and_says_so(warned: dict[str, Run], method: str) -> None:
    run = warned[method]
    seen = looks(run.events())
    assert [w.step for w in seen] == [0, 1, 2, 3, 4, 5, 6] and seen[0].level == seen[1].level == "green"
    assert seen[1].slices[0].difference == pytest.approx(0.0, abs=1e-6) and seen[1].kl == pytest.approx(0.0, abs=1e-5)
    assert seen[-1].level == "red" and seen[-1].kl and seen[-1].kl > 0.01
    first = acts(run)[0]
    assert first.action == "warn" and first.step == next(w.step for w in seen if w.level == "red")
    evidence = run.evidence()
    assert evidence.forgetting and evidence.forgetting.worst == "red" and evidence.forgetting.looks == 7
    assert [p.step for p in evidence.forgetting.frontier] == [0, 2, 4, 6]  # states with a validation
    assert "forgot" in [f.name for f in evidence.findings]
    assert any(a.quantity == "watch_seconds" and a.actual for a in evidence.actuals)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_what_was_seen_last_is_what_was_published(warned: dict[str, Run], model: Path, method: str) -> None:
    run = warned[method]
    found = run.evidence().forgetting
    assert found
    base = load_base(model, dtype="fp32")
    if method == "lora":
        tuned: Any = load_adapter(load_base(model, dtype="fp32"), run.adapter)
    else:
        tuned = load_base(run.model, dtype="fp32")
    sets = ability_sets(run.plan().job, ChatText.from_folder(model), [])
    rows = [item[0] for item in sets[0].items]
    before, after = (row_losses(m, rows) for m in (base, tuned))
    rise = sum(a[0] - b[0] for a, b in zip(after, before, strict=True)) / sum(count for _, count in before)
    # A full model is saved in bf16.
    assert found.slices[0].difference == pytest.approx(rise, rel=1e-4 if method == "lora" else 5e-2)


@pytest.mark.parametrize("stop_after", [3, 4])
def test_a_resumed_run_keeps_the_cadence(warned: dict[str, Run], model: Path, tmp_path: Path, stop_after: int) -> None:
    run = watched_run(tmp_path, model)
    carry_out(run, stop_after=stop_after)
    carry_out(run, resume=True)
    assert told(run) == told(warned["lora"])
    assert weights(run.adapter) == weights(warned["lora"].adapter)


# -- lower_lr --------------------------------------------------------------------------------------


def lowering(folder: Path, model: Path) -> Run:
    return watched_run(folder, model, forgetting={"action": "lower_lr"}, train={"max_steps": 7})


def test_the_rate_is_lowered_and_stays_so_over_a_resume(model: Path, tmp_path: Path) -> None:
    whole = lowering(tmp_path / "whole", model)
    rates = {e.step: e.learning_rate for e in carry_out(whole) if isinstance(e, Step)}
    first = acts(whole)[0]
    assert first.action == "lower_lr" and first.learning_rate_factor == pytest.approx(1 / 3)
    lowered = [a.step for a in acts(whole) if a.action == "lower_lr"]
    for step in range(1, 8):
        expected = RATES["lora"] * min(1.0, (step - 1) / 4) / 3 ** sum(at < step for at in lowered)
        assert rates[step] == pytest.approx(expected)
    for stop_after in (first.step, first.step + 1):
        run = lowering(tmp_path / str(stop_after), model)
        carry_out(run, stop_after=stop_after)
        carry_out(run, resume=True)
        assert told(run) == told(whole)
        assert weights(run.adapter) == weights(whole.adapter)


# -- stop ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_that_is_stopped_can_go_on(warned: dict[str, Run], model: Path, tmp_path: Path, method: str) -> None:
    run = watched_run(tmp_path, model, method, forgetting={"action": "stop"})
    events = carry_out(run)
    last = events[-1]
    assert last.event == "stopped" and "forgetting is red: general" in last.reason and run.state() == "stopped"
    assert last.step == acts(run)[0].step == acts(warned[method])[0].step
    assert (run.checkpoints / f"checkpoint-{last.step}").is_dir() and not published(run).exists()
    while events[-1].event == "stopped":  # whoever resumes goes on, until it gets worse
        events = carry_out(run, resume=True)
    assert losses(run.events()) == losses(warned[method].events())
    assert weights(published(run)) == weights(published(warned[method]))


@pytest.mark.prove
def test_the_command_ends_as_one_that_was_stopped(model: Path, tmp_path: Path) -> None:
    from tests.training import cli

    run = watched_run(tmp_path, model, forgetting={"action": "stop"})
    shutil.rmtree(run.folder)
    ended = cli("train", tmp_path / "job.yaml", "--out", run.folder)
    assert ended.returncode == 1 and "forgetting is red" in ended.stderr and "--resume" in ended.stderr


# -- rollback --------------------------------------------------------------------------------------


def test_a_red_run_goes_back_to_what_was_green(model: Path, tmp_path: Path) -> None:
    for method in ("lora", "full"):
        run = watched_run(tmp_path / method, model, method, forgetting={"action": "rollback"})
        events = carry_out(run)
        (acted,) = acts(run)
        seen = {w.step: w.level for w in looks(events)}
        green = max(step for step, level in seen.items() if level == "green")
        assert acted.action == "rollback" and acted.back_to == green >= 1 and acted.step > green
        assert isinstance(events[-1], Finished) and events[-1].step == acted.step < 6
        assert not any(isinstance(e, Saved) and e.step == acted.step for e in events)
        kept = load_file(next((run.checkpoints / f"checkpoint-{green}").glob("*.safetensors")))
        left = load_file(next(published(run).glob("*.safetensors")))
        assert kept.keys() == left.keys()
        assert all(torch.equal(left[name], kept[name].to(left[name].dtype)) for name in left)
        found = run.evidence().forgetting
        assert found and (found.level, found.step, found.worst) == ("green", green, "red")


def test_without_any_green_step_it_goes_back_to_the_start(model: Path, tmp_path: Path) -> None:
    train = {"warmup_steps": 0, "lr_scheduler_type": "constant"}
    run = watched_run(tmp_path, model, "full", forgetting={"action": "rollback"}, train=train)
    carry_out(run)
    (acted,) = acts(run)
    assert acted.back_to == 0
    base, left = (load_file(folder / "model.safetensors") for folder in (model, run.model))
    assert all(torch.equal(base[name], left[name]) for name in base)


def test_killed_before_it_was_published_it_goes_back_again(model: Path, tmp_path: Path) -> None:
    import threading

    whole = watched_run(tmp_path / "whole", model, forgetting={"action": "rollback"})
    carry_out(whole)
    run = watched_run(tmp_path / "killed", model, forgetting={"action": "rollback"})
    road = work(run, resume=False, stop_signal=threading.Event())
    for event in road:
        if isinstance(event, Acted):
            break
    road.close()  # type: ignore[attr-defined]
    assert run.state() == "killed" and not run.adapter.exists()
    carry_out(run, resume=True)
    assert told(run) == told(whole) and weights(run.adapter) == weights(whole.adapter)


# -- methods ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["qlora", "pissa", "prompt", "bottleneck"])
def test_every_kind_of_method_is_held_against_its_own_base(model: Path, tmp_path: Path, method: str) -> None:
    run = watched_run(tmp_path, model, method, train={"max_steps": 2})
    seen = looks(carry_out(run))
    assert [w.step for w in seen] == [0, 1, 2]
    text = seen[0].slices[0]
    if method == "prompt":  # it begins with positions that nobody has trained
        assert abs(text.difference) > 1e-3
    else:
        assert text.difference == 0.0 and seen[1].slices[0].difference == pytest.approx(0.0, abs=1e-3)
    assert seen[2].slices[0].difference != seen[1].slices[0].difference


# -- what it is given ------------------------------------------------------------------------------


def test_by_default_our_own_sets_are_looked_at_before_and_after(model: Path, tmp_path: Path) -> None:
    run = api.prepare(toy_job(tmp_path, model, forgetting={}, train={"max_steps": 2}), tmp_path / "run", {})
    time = run.plan().chosen().time  # type: ignore[union-attr]
    assert time.watch and time.watch.looks >= 2 and time.watch.seconds
    seen = looks(carry_out(run))
    assert (seen[0].step, seen[-1].step) == (0, 2)
    sizes = [(s.name, s.items) for s in seen[-1].slices]
    assert sizes == [("general text", 48), ("general answers", 24), ("general questions", 80)]


def test_general_rows_are_a_slice_of_their_own(model: Path, tmp_path: Path) -> None:
    tmp_path.joinpath("rows.jsonl").touch()
    write_jsonl(tmp_path / "rows.jsonl", [{"prompt": f"say {n}", "completion": f"{n} it is"} for n in range(24)])
    data = {"train": "train.jsonl", "validation": 0.25, "general": {"path": "rows.jsonl", "share": 0.1}}
    run = watched_run(tmp_path, model, data=data, train={"max_steps": 1})
    (_, last) = looks(carry_out(run))
    assert [s.name for s in last.slices] == ["general text", "general rows", "general questions"]


def refused(folder: Path, model: Path, **forgetting: str) -> RankwiseError:
    files = {"watch_steps": 1, **ability_files(folder), **forgetting}
    with pytest.raises(RankwiseError) as caught:
        api.prepare(toy_job(folder, model, forgetting=files), folder / "run", {})
    return caught.value


def test_bad_probes_are_refused_before_anything_is_loaded(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    write_jsonl(tmp_path / "odd.jsonl", [{"question": "q?", "choices": ["a"], "answer": "a"}])
    for key, name in (("questions", "empty.jsonl"), ("general", "empty.jsonl"), ("questions", "odd.jsonl")):
        error = refused(tmp_path, model, **{key: name})
        assert isinstance(error, DataError) and name in error.what and (error.expected or error.fix)
        assert not (tmp_path / "run").exists()
    missing = refused(tmp_path, model, questions="question.jsonl")
    assert isinstance(missing, JobError) and "did you mean questions.jsonl" in missing.fix


def test_a_model_without_its_tokenizer_is_refused(model: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    (bare / "tokenizer.json").unlink()
    error = refused(tmp_path / "job", bare)
    assert isinstance(error, ModelError) and "tokenizer.json" in error.what


def test_questions_that_changed_after_the_plan_are_not_asked(model: Path, tmp_path: Path) -> None:
    run = watched_run(tmp_path, model)
    with (tmp_path / "questions.jsonl").open("a") as file:
        file.write('{"question": "q?", "choices": ["a", "b"], "answer": "a"}\n')
    with pytest.raises(DataError, match="not those that the plan was made for"):
        carry_out(run)
