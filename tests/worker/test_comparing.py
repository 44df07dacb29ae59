"""What the process of one arm does with runs that diverge, are stopped, or were not judged yet."""

from pathlib import Path
from typing import Any

import pytest

from rankwise import api
from rankwise.api.arms_priced import DISK_BYTES_PER_SECOND, POINTS, bill_of
from rankwise.compare.budget import Ask
from rankwise.compare.folder import Folder, final_name
from rankwise.compare.measured import Measured, Told
from rankwise.errors import Interrupted, TrainingError
from rankwise.files import write_record
from rankwise.records import Bakeoff, Trial
from rankwise.worker import measuring
from rankwise.worker.comparing import ArmWork
from tests.training import toy_job, toy_model

STEPS = 6
ARM = "lora:r=4"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Folder:
    """A planned comparison whose arm takes a few steps at one rate of two."""
    wanted = api.Wanted(f"base,{ARM}", "flops", 1e10, 1, 2)
    folder = api.prepare_comparison(toy_job(tmp_path, model), wanted, tmp_path / "out")
    return changed(folder, {"steps": STEPS, "odd_steps": 0, "sweep_steps": 2, "learning_rates": (0.02,)})


def changed(folder: Folder, update: dict[str, object]) -> Folder:
    bakeoff: Bakeoff = folder.bakeoff()
    base, lora = bakeoff.allowances
    write_record(folder.bakeoff_path, bakeoff.model_copy(update={"allowances": (base, lora.model_copy(update=update))}))
    (folder.path / "logs").mkdir(exist_ok=True)
    return folder


def worked(folder: Folder, *, stop_after: int | None = None) -> list[Told]:
    """The arm's work in this process; with `stop_after`, it is asked to stop after that step."""
    told: list[Told] = []

    def stop() -> bool:
        return stop_after is not None and any(t.done >= stop_after and t.total == STEPS for t in told)

    ArmWork(folder, ARM, stop, told.append).work()
    return told


def trial(folder: Folder) -> Trial:
    found = folder.trial(final_name(folder.bakeoff().allowances[1].arm, 0))
    assert found is not None
    return found


def test_a_diverged_run_of_the_sweep_is_recorded_and_not_chosen(folder: Folder) -> None:
    changed(folder, {"learning_rates": (0.02, 1e30), "sweep_steps": 4})
    worked(folder)
    swept = {t.learning_rate: t for t in folder.trials() if t.purpose == "sweep"}
    assert swept[1e30].chosen_by is None and "diverged" in swept[1e30].notes[0]
    assert swept[0.02].chosen_by is not None and trial(folder).learning_rate == 0.02


def test_a_sweep_that_diverged_throughout_says_so(folder: Folder) -> None:
    changed(folder, {"learning_rates": (1e29, 1e30), "sweep_steps": 4})
    with pytest.raises(TrainingError, match="diverged at each learning rate") as failed:
        worked(folder)
    assert "train.learning_rate" in failed.value.fix


def test_a_stopped_run_goes_on_from_its_checkpoint(folder: Folder, model: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        worked(folder, stop_after=3)
    assert folder.trials() == ()
    told = worked(folder)
    assert [t.done for t in told if t.what.endswith("seed-0")] == [0, 4, 5, 6]
    other = api.prepare_comparison(
        tmp_path / "job.yaml", api.Wanted(f"base,{ARM}", "flops", 1e10, 1, 2), tmp_path / "other"
    )
    changed(other, {"steps": STEPS, "odd_steps": 0, "sweep_steps": 2, "learning_rates": (0.02,)})
    worked(other)
    one, unbroken = trial(folder), trial(other)
    assert (one.steps, one.tokens, one.flops) == (unbroken.steps, unbroken.tokens, unbroken.flops)
    assert [p.loss for p in one.curve] == [p.loss for p in unbroken.curve]
    assert one.scores == unbroken.scores


def test_what_was_trained_and_not_judged_is_judged_without_training(folder: Folder) -> None:
    worked(folder)
    first = trial(folder)
    for path in (folder.path / "trials").iterdir():
        path.unlink()
    told = worked(folder)
    assert [t.done for t in told if t.what.endswith("seed-0")] == [0]
    again = trial(folder)
    assert again.curve == first.curve and again.flops == first.flops and again.stored_bytes == first.stored_bytes
    for one, other in zip(first.scores, again.scores, strict=True):
        assert one.values == pytest.approx(other.values, rel=0.02)
    assert worked(folder) == []


def test_an_arm_is_measured_without_leaving_a_trace(folder: Folder) -> None:
    told: list[Told] = []
    ArmWork(folder, ARM, lambda: False, told.append).measure()
    measured = told[-1].measured
    assert measured is not None and measured.step is not None and measured.load > 0 and measured.look > 0
    low, high = measured.spread
    assert low <= 1 <= high and len(measured.steps) == measuring.STEPS - 1
    assert measured.step_flops == pytest.approx(folder.bakeoff().allowances[1].step_flops)
    for table in measured.answers.values():
        assert list(table.values()) == sorted(table.values()) and min(table.values()) > 0
    assert set(measured.answers) == {"base", "trained"}
    assert folder.trials() == () and not list(folder.runs.glob("*"))


def test_a_budget_of_seconds_is_dealt_by_what_was_measured(folder: Folder) -> None:
    bakeoff = folder.bakeoff()
    answers: dict[Any, dict[int, float]] = {"base": {8: 2.0, 16: 5.0}, "trained": {8: 1.0, 16: 3.0}}
    measured = Measured(start=4.0, load=1.0, look=0.5, steps=(0.2, 0.2), step_flops=1e9, answers=answers)
    bill = bill_of(bakeoff, {ARM: measured})
    base, lora = bill.asks(16)
    stored = (bakeoff.allowances[1].stored_bytes or 0.0) / DISK_BYTES_PER_SECOND
    assert base == Ask("base", None, 4.0 + 1.0 + 5.0)
    assert lora.step == 0.2 and lora.beside == pytest.approx(4.0 + (1.0 + stored) + 0.5 * (1 + POINTS) + 3.0)
    assert bill.sizes_within(10.0) == [16, 8] and bill.sizes_within(7.9) == [8] and bill.sizes_within(0.0) == [8]
