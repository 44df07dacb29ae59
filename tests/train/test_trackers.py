"""Trackers get a run's numbers; one that fails costs the run a sentence."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from rankwise.errors import JobError
from rankwise.records import Job, Note, Step, Validation
from rankwise.store import Run
from rankwise.train import trackers
from rankwise.train.trackers import numbers, reporters, require_installed
from tests import builders
from tests.tiny import tiny_config
from tests.training import carry_out, toy_model, toy_run

SHORT = {"max_steps": 4, "eval_steps": 2}


def trained(folder: Path, **train: Any) -> Run:
    model = toy_model(folder / "model")
    run = toy_run(folder, model, train=SHORT | train)
    carry_out(run)
    return run


def scalars(folder: Path, tag: str) -> dict[int, float]:
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder))
    found.Reload()
    return {point.step: point.value for point in found.Scalars(tag)}


def test_tensorboard_has_what_the_run_has(tmp_path: Path) -> None:
    run = trained(tmp_path, report_to="tensorboard")
    events = run.events()
    for tag, kind in (("train/loss", Step), ("eval/loss", Validation)):
        expected = {e.step: e.loss for e in events if isinstance(e, kind)}
        assert len(expected) >= 3
        assert scalars(run.folder / "tensorboard", tag) == pytest.approx(expected)
    assert not [e for e in events if isinstance(e, Note) and "tensorboard" in e.text]


def test_a_tracker_that_fails_is_a_sentence_of_a_run_that_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that TensorBoard would write to is a file."""
    begin = Run.begin

    def begin_and_block(self: Run, plan: Any) -> None:
        begin(self, plan)
        (self.folder / "tensorboard").write_text("in the way")

    monkeypatch.setattr(Run, "begin", begin_and_block)
    run = trained(tmp_path, report_to="tensorboard", max_steps=8)
    assert run.state() == "finished"
    (note,) = [e.text for e in run.events() if isinstance(e, Note) and "tensorboard" in e.text]
    assert note.startswith("tensorboard is told nothing more: ") and "Error" in note


def test_a_run_that_is_stopped_ends_with_that_whatever_trackers_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher knows by the last event that a run was stopped."""

    def fail(name: str, folder: Path) -> Any:
        raise ConnectionError("no route to the tracker")

    monkeypatch.setattr(trackers, "_started", fail)
    model = toy_model(tmp_path / "model")
    run = toy_run(tmp_path, model, train=SHORT | {"report_to": "tensorboard"})
    carry_out(run, stop_after=2)
    events = run.events()
    assert events[-1].event == "stopped" and run.state() == "stopped"
    assert [e for e in events if isinstance(e, Note) and "no route to the tracker" in e.text]


def test_one_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a network that does not answer: its thread stands still while the others go on."""
    import threading

    release, started = threading.Event(), trackers._started

    def hang(name: str, folder: Path) -> Any:
        release.wait(60)
        return started(name, folder)

    monkeypatch.setattr(trackers, "_started", hang)
    monkeypatch.setattr(trackers, "PATIENCE", 0.2)
    step = Step(
        time="now", step=1, epoch=0.1, loss=2.0, grad_norm=1.0, learning_rate=1e-3, tokens=10, supervised_tokens=5,
        seconds=0.5,
    )  # fmt: skip
    with reporters(["tensorboard"], tmp_path, tiny_config()) as told:
        told.tell(step)
        assert told.failures() == []
    release.set()
    assert numbers(step)["train/tokens_per_second"] == 20.0
    assert numbers(builders.watched(10, 0.05)) == {"forgetting/general_text": 0.05, "forgetting/kl": 0.02}


@pytest.mark.parametrize(("name", "settings"), [
    ("wandb", {"WANDB_MODE": "offline"}),
    ("trackio", {"TRACKIO_DIR": "{folder}"}),
    ("mlflow", {"MLFLOW_TRACKING_URI": "file:{folder}/mlruns", "MLFLOW_ALLOW_FILE_STORE": "true"}),
])  # fmt: skip
def test_the_others_take_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, str]
) -> None:
    pytest.importorskip(trackers.PACKAGES[name])
    for key, value in settings.items():
        monkeypatch.setenv(key, value.format(folder=tmp_path))
    run = trained(tmp_path, report_to=name)
    assert run.state() == "finished"
    assert not [e.text for e in run.events() if isinstance(e, Note) and name in e.text]


def test_a_missing_package_is_said_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.PACKAGES, "wandb", "no_such_package_here")
    with pytest.raises(JobError, match=r"names wandb[\s\S]*pip install no_such_package_here"):
        require_installed(["tensorboard", "wandb"])


def test_none_is_the_rule() -> None:
    def said(**train: Any) -> tuple[str, ...]:
        described = {"goal": "task", "model": "m", "data": {"examples": 9}, "train": train}
        return Job.model_validate(described).train.trackers

    assert said() == said(report_to="none") == ()
    assert said(report_to="wandb") == ("wandb",)
    assert said(report_to=["wandb", "tensorboard"]) == ("wandb", "tensorboard")
