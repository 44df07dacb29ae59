"""The ledger from end to end: what the commands measure is kept, told, and corrects what they tell next."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from rankwise import api
from rankwise.api import calibrating
from rankwise.cli import app
from rankwise.estimate import selfcheck
from rankwise.estimate.ledger import entries
from rankwise.observe import devices
from rankwise.records import Setup
from rankwise.records.job import Hardware
from rankwise.records.ledger import LedgerEntry
from rankwise.records.selfcheck import Compared, Measured, SelfCheck
from rankwise.store import Run
from tests.training import environment, toy_job, toy_model, toy_run, trained

torch.set_num_threads(1)
CALIBRATED = ("--calibrate", "--method", "lora", "--rank", 8, "--batch", 2, "--seq-len", 48, "--gpu", "cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger.jsonl"
    monkeypatch.setenv("RANKWISE_LEDGER", str(path))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def kept() -> dict[str, LedgerEntry]:
    return {e.quantity: e for e in entries()}


# -- estimate --calibrate --------------------------------------------------------------------------


def test_calibrate_prices_with_what_it_measured(model: Path) -> None:
    before = json.loads(run("estimate", "--model", model, *CALIBRATED[1:], "--json").stdout)
    assert before["time"]["correction"] is None
    done = run("estimate", "--model", model, *CALIBRATED, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    step = kept()["step"]
    assert set(kept()) == {"step", "forward", "generation", "merge"}
    assert step.predicted == pytest.approx(before["time"]["step_seconds"])
    assert found["time"]["step_seconds"] == pytest.approx(step.actual)
    assert found["time"]["correction"] == pytest.approx(step.actual / step.predicted)
    assert "1 calibration on " in found["sources"]["time"]
    said = [note for note in found["notes"] if note.startswith("calibrated: ")]
    assert len(said) == 4 and "2 rows x 48 tokens" in said[0] and "factor" in said[0]
    assert set(found) == set(before)


def test_calibrate_as_a_table(model: Path) -> None:
    done = run("estimate", "--model", model, *CALIBRATED)
    assert done.exit_code == 0, done.output
    for said in (
        "predicted by formula",
        "an optimizer step of 2 rows x 48 tokens",
        "Stored 4 factors for adapter methods",
    ):
        assert said in done.stdout
    assert "training steps: 22 of 22" in done.stderr


def test_a_gpu_that_this_machine_lacks_is_named(model: Path, monkeypatch: pytest.MonkeyPatch, ledger: Path) -> None:
    monkeypatch.setattr(calibrating, "gpus_here", list)
    done = run("estimate", "--model", model, "--calibrate", "--gpu", "A100-80GB", "--json")
    error = json.loads(done.stdout)["error"]
    assert done.exit_code == 2 and "which has no A100" in error["what"] and "--gpu" in error["fix"]
    assert not ledger.exists()


def test_a_gpu_that_is_here_passes_under_either_name(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [{"name": "NVIDIA A100-SXM4-80GB", "total": 1, "free": 1, "capability": 8.0}]
    monkeypatch.setattr(calibrating, "gpus_here", lambda: here)
    asked = api.configuration({"model": "llama-3-8b", "gpu": "A100-80GB"})
    calibrating._require_here(asked)
    with pytest.raises(Exception, match="no H100"):
        calibrating._require_here(asked.model_copy(update={"gpu": "H100-80GB-SXM"}))


def test_many_configurations_are_not_calibrated_at_once(model: Path, tmp_path: Path) -> None:
    (tmp_path / "batch.json").write_text("[]")
    done = run("estimate", "--calibrate", "--batch-file", tmp_path / "batch.json")
    assert done.exit_code == 2 and "--batch-file" in done.stderr


def test_weights_are_never_downloaded(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub id counts as here only when the hub's cache has it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    asked: list[dict[str, Any]] = []

    def snapshot(name: str, **options: Any) -> str:
        asked.append(options)
        return str(model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert calibrating._files_here("org/model") == model.resolve()
    assert asked[0]["local_files_only"] is True
    assert calibrating._files_here("llama-3-8b") is None and calibrating._files_here(str(tmp_path)) is None


# -- runs ------------------------------------------------------------------------------------------


def test_train_eval_and_merge_each_add_what_they_took(model: Path, tmp_path: Path) -> None:
    planned = toy_run(tmp_path, model, format={"regex": r".*\."})
    events = list(api.train(planned))
    assert events[-1].event == "finished"
    step, train = kept()["step"], kept()["train"]
    told = planned.plan().chosen()
    assert told is not None and step.corrected == told.time.step_seconds and step.source == "run run"
    seconds = [e.seconds for e in events if e.event == "step"]
    assert step.actual == pytest.approx(sum(seconds) / 6)
    started = next(e for e in events if e.event == "started")
    assert started.load_seconds is not None and 1 < started.load_seconds < 120
    assert train.actual >= sum(seconds)

    done = run("eval", planned.folder)
    assert done.exit_code == 0, done.output
    assert done.stdout.rstrip().splitlines()[-1].startswith("Evaluation: predicted ")
    assert {"forward", "generation", "evaluation"} < set(kept())
    whole = kept()["evaluation"]
    assert whole.actual >= kept()["forward"].actual + kept()["generation"].actual

    done = run("merge", planned.folder)
    assert done.exit_code == 0, done.output
    assert done.stdout.rstrip().splitlines()[-1].startswith("Merge: predicted ")
    found = {a.quantity: a for a in planned.evidence().actuals}
    assert found["merge_seconds"].actual == kept()["merge"].actual
    assert found["evaluation_seconds"].actual == whole.actual
    assert found["evaluation_seconds"].predicted == pytest.approx(whole.corrected)
    assert [e.source for e in entries()] == ["run run"] * 6


def test_a_second_evaluation_is_told_by_the_first(model: Path, tmp_path: Path) -> None:
    done = trained(tmp_path, model)
    for _ in range(2):
        api.evaluate(done)
    first, second = (e for e in entries() if e.quantity == "generation")
    assert first.corrected == pytest.approx(first.predicted)
    assert second.corrected == pytest.approx(second.predicted * first.actual / first.predicted)
    assert [a.quantity for a in done.evidence().actuals].count("evaluation_seconds") == 1


def test_a_ledger_that_cannot_be_written_stops_nothing(
    model: Path, tmp_path: Path, ledger: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.mkdir()
    done = trained(tmp_path, model)
    api.evaluate(done)
    assert done.evidence().evaluation is not None and api.merge(done).is_dir()
    assert sum("were not kept: the ledger" in record.message for record in caplog.records) == 2


def test_merge_says_its_time_in_json(model: Path, tmp_path: Path) -> None:
    done: Run = trained(tmp_path, model)
    found = json.loads(run("merge", done.folder, "--json").stdout)
    assert found["time"]["quantity"] == "merge_seconds" and found["time"]["actual"] > 0


def test_the_jobs_processes_use_the_ledger_that_is_named(ledger: Path, model: Path, tmp_path: Path) -> None:
    assert environment()["RANKWISE_LEDGER"] == str(ledger)
    decided = api.plan_job(api.load_job(toy_job(tmp_path / "job", model), {}))
    chosen = decided.chosen()
    assert chosen is not None and chosen.time.correction is None


# -- doctor ----------------------------------------------------------------------------------------


def test_a_self_check_adds_its_steps() -> None:
    facts = devices.observe_device(Hardware(gpu="cpu"))
    setup = Setup(config={}, method="lora", dtype="bf16", per_device_train_batch_size=2, max_length=128, device="cpu")
    row = Compared(
        id="lora",
        model="embedded",
        setup=setup,
        predicted_allocated=1,
        predicted_reserved=None,
        predicted_phase="backward",
        flops=1.0,
        predicted_seconds=3.0,
        formula_seconds=2.0,
        measured=Measured(
            peak_allocated=1, peak_reserved=None, process_bytes=None, context_bytes=None, step_seconds=2.5
        ),
    )
    failed = row.model_copy(update={"measured": None, "error": "no kernel"})
    unknown = row.model_copy(update={"formula_seconds": None, "predicted_seconds": None})
    check = SelfCheck(
        made_at="",
        device="cpu",
        device_name="",
        versions={},
        conditions=(),
        rows=(row, failed, unknown),
        never_run_on_gpu=(),
    )
    (made,) = selfcheck.ledger_entries(check, facts)
    assert (made.predicted, made.corrected, made.actual, made.source) == (2.0, 3.0, 2.5, "doctor")
    assert (made.work.length, made.family, made.quantity) == (128.0, "adapter", "step")
