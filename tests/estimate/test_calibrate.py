"""Calibration: real steps of small models on this processor, put into a ledger, or cleanly not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rankwise.errors import AnswerIsNo, RankwiseError, UsageError
from rankwise.estimate import calibrate as calibrating
from rankwise.estimate.calibrate import PASSES, STEPS, WARM_UP, calibrate
from rankwise.estimate.ledger import correction, entries
from rankwise.estimate.time import passes
from rankwise.estimate.traced import traced
from rankwise.export.merge import fold
from rankwise.observe.devices import observe_device
from rankwise.records import DeviceFacts, Setup
from rankwise.records.job import Hardware
from rankwise.records.ledger import Calibration
from tests.tiny import tiny_llama

torch.set_num_threads(1)
SIZES = {"hidden": 64, "intermediate": 128}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny", **SIZES)


@pytest.fixture(scope="module")
def cpu() -> DeviceFacts:
    return observe_device(Hardware(gpu="cpu"))


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKWISE_LEDGER", str(tmp_path / "ledger.jsonl"))
    return tmp_path / "ledger.jsonl"


def setup_of(folder: Path, method: str = "lora", **options: Any) -> Setup:
    config = json.loads((folder / "config.json").read_text())
    adapter = {} if method == "full" else {"r": 8, "lora_alpha": 16.0, "target_modules": "all-linear"}
    shape = {"per_device_train_batch_size": 2, "max_length": 48, "dtype": "fp32"}
    return Setup(config=config, method=method, device="cpu", **{**shape, **adapter, **options})


def calibrated(folder: Path | None, setup: Setup, cpu: DeviceFacts, **options: Any) -> Calibration:
    return calibrate(setup, folder, cpu, model="tiny", **{"steps": 3, **options})


def merge_of(folder: Path) -> Any:
    return lambda adapter, out: fold(folder, adapter, out, four_bit=False, dtype="bf16")


def test_every_part_is_timed_and_kept_with_the_formulas_seconds(folder: Path, cpu: DeviceFacts) -> None:
    setup = setup_of(folder)
    found = calibrated(folder, setup, cpu, mean_length=31.0, merge=merge_of(folder))
    assert [t.quantity for t in found.timings] == ["step", "forward", "generation", "merge"]
    assert (found.family, found.weights, found.device) == ("adapter", "real", cpu.name)
    kept = {e.quantity: e for e in entries()}
    assert found.entries == len(kept) == 4
    for timing in found.timings:
        assert timing.spread[0] <= timing.seconds <= timing.spread[1]
        entry = kept[timing.quantity]
        assert (entry.actual, entry.predicted) == (timing.seconds, timing.predicted)
        assert (entry.source, entry.model, entry.work.length) == ("calibrate", "tiny", 31.0)
    raw = passes(traced(setup), setup, cpu, mean_length=31.0)
    assert raw is not None and kept["step"].predicted == pytest.approx(raw.total)
    assert "2 rows x 31 tokens" in found.timings[0].what


def test_the_next_estimate_of_the_same_work_is_what_was_measured(folder: Path, cpu: DeviceFacts) -> None:
    setup = setup_of(folder)
    step = next(t for t in calibrated(folder, setup, cpu).timings if t.quantity == "step")
    raw = passes(traced(setup), setup, cpu, mean_length=48.0)
    assert raw is not None
    known = correction(cpu, "adapter", "step", near=raw.total)
    assert known is not None and known.count == 1
    assert raw.total * known.factor == pytest.approx(step.seconds)
    assert known.source.startswith("1 calibration on ")


def test_told_seconds_are_corrected_from_the_second_calibration_on(folder: Path, cpu: DeviceFacts) -> None:
    setup = setup_of(folder)
    first = next(t for t in calibrated(folder, setup, cpu).timings if t.quantity == "step")
    calibrated(folder, setup, cpu)
    steps = [e for e in entries() if e.quantity == "step"]
    assert [s.corrected for s in steps] == [pytest.approx(first.predicted), pytest.approx(first.seconds)]


def test_without_its_files_the_model_has_random_weights_and_no_merge(folder: Path, cpu: DeviceFacts) -> None:
    found = calibrated(None, setup_of(folder), cpu, merge=merge_of(folder))
    assert found.weights == "random" and [t.quantity for t in found.timings] == ["step", "forward", "generation"]


@pytest.mark.parametrize(
    ("method", "options", "timed"),
    [
        ("full", {}, ["step", "forward", "generation"]),
        ("qlora", {"dtype": "bf16"}, ["step", "forward", "generation"]),
        ("lora", {"dtype": "bf16", "autocast": "bf16"}, ["step", "forward", "generation"]),
        ("full", {"autocast": "bf16", "gradient_checkpointing": True}, ["step"]),
        ("dora", {"dtype": "bf16"}, ["step", "forward", "generation"]),
        ("loha", {"gradient_accumulation_steps": 2, "loss": "labelled", "labelled_share": 0.5}, ["step"]),
    ],
    ids=["full", "qlora", "lora-autocast", "amp", "dora", "loha"],
)
def test_methods(method: str, options: dict[str, Any], timed: list[str], folder: Path, cpu: DeviceFacts) -> None:
    found = calibrated(folder, setup_of(folder, method, **options), cpu)
    assert [t.quantity for t in found.timings] == timed
    assert bool(found.notes) == (len(timed) == 1) and found.entries == len(timed)


def test_twenty_steps_after_two_that_warm_up(folder: Path, cpu: DeviceFacts) -> None:
    told: list[tuple[str, int, int]] = []
    found = calibrate(setup_of(folder), folder, cpu, model="tiny", progress=lambda *said: told.append(said))
    step, forward, _ = found.timings
    assert (step.repeats, forward.repeats) == (STEPS, PASSES) == (20, 3)
    steps = [done for what, done, _ in told if what == "training steps"]
    assert steps == list(range(1, STEPS + WARM_UP + 1)) and ("likelihoods", PASSES + 1, PASSES + 1) in told


def test_ctrl_c_leaves_no_entry_and_no_folder(
    folder: Path, cpu: DeviceFacts, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def stop(what: str, done: int, total: int) -> None:
        if what == "answers":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrated(None, setup_of(folder), cpu, progress=stop)
    assert not ledger.exists() and list(tmp_path.iterdir()) == []


def test_a_failing_part_leaves_no_entry_and_is_told_plainly(folder: Path, cpu: DeviceFacts, ledger: Path) -> None:
    def broken(adapter: Path, out: Path) -> None:
        raise ValueError("no kernel for this\nand a long story")

    with pytest.raises(RankwiseError, match=r"cannot run here: ValueError: no kernel for this\n") as told:
        calibrated(folder, setup_of(folder), cpu, merge=broken)
    assert told.value.exit_code == 1 and not ledger.exists()


def test_switched_off_nothing_is_kept(folder: Path, cpu: DeviceFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKWISE_LEDGER", "off")
    found = calibrated(folder, setup_of(folder), cpu)
    assert found.entries == 0 and found.timings


def test_what_does_not_fit_is_refused_before_a_weight_is_made(
    folder: Path, cpu: DeviceFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: Any) -> Iterator[Path]:
        raise AssertionError("weights were made")

    monkeypatch.setattr(calibrating, "weights_of", never)
    small = cpu.model_copy(update={"available_bytes": 500_000_000})
    with pytest.raises(AnswerIsNo, match=r"would take .* GB, and .* has 0.5 GB free now") as told:
        calibrated(None, setup_of(folder), small)
    assert told.value.exit_code == 3 and "smaller" in told.value.fix


@pytest.mark.parametrize("options", [{"parallel": "ddp", "world_size": 2}, {"loss": "fast-ce"}], ids=str)
def test_what_one_process_cannot_run_is_refused(options: dict[str, Any], folder: Path, cpu: DeviceFacts) -> None:
    with pytest.raises(UsageError):
        calibrated(folder, setup_of(folder, **options), cpu)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_here_is_one_clear_error(folder: Path, cpu: DeviceFacts) -> None:
    named = observe_device(Hardware(gpu="A100-80GB"))
    with pytest.raises(RankwiseError, match="no CUDA device"):
        calibrated(folder, setup_of(folder), named)
