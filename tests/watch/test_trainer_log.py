"""trainer_state.json as events: what it says, what it does not, and what is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from rankwise.errors import RunError
from rankwise.records import Step, Validation
from rankwise.watch.findings import find
from rankwise.watch.trainer_log import checkpoints, diverged, newest_log, read_trainer_log


def state(folder: Path, *lines: dict[str, Any], **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "trainer_state.json"
    path.write_text(json.dumps({"global_step": 30, "max_steps": 40, "log_history": list(lines)} | more))
    return path


def step(n: int, loss: float = 2.0, norm: float = 1.0) -> dict[str, Any]:
    return {"loss": loss, "grad_norm": norm, "learning_rate": 1e-4, "epoch": n / 10, "step": n}


def test_steps_and_validations_become_events(tmp_path: Path) -> None:
    end = {"train_runtime": 4.0, "train_loss": 1.0, "step": 20}
    log = read_trainer_log(
        state(tmp_path, step(10), {"eval_loss": 1.5, "eval_runtime": 2.0, "step": 10}, step(20), end)
    )
    first, held, second = log.events
    assert isinstance(first, Step) and isinstance(held, Validation) and isinstance(second, Step)
    assert (first.loss, first.grad_norm, first.learning_rate, first.step) == (2.0, 1.0, 1e-4, 10)
    assert (held.loss, held.seconds, held.step) == (1.5, 2.0, 10)
    assert (log.step, log.max_steps, log.diverged, log.notes) == (30, 40, None, ())


def test_the_same_findings_look_at_it(tmp_path: Path) -> None:
    losses = [{"eval_loss": value, "step": 10 * n} for n, value in enumerate((2.5, 2.0, 1.0, 2.0))]
    spikes = [step(n, norm=100.0 if n == 15 else 1.0) for n in range(1, 21)]
    names = [f.name for f in find(None, read_trainer_log(state(tmp_path, *losses, *spikes)).events)]
    assert {"learned", "overfitting", "gradient_spikes"} <= set(names)


def test_a_loss_that_is_no_number_is_a_fault_and_no_event(tmp_path: Path) -> None:
    log = read_trainer_log(state(tmp_path, step(10), step(20, loss=float("nan")), step(30, norm=float("inf"))))
    assert len(log.events) == 1 and log.diverged == 20
    said = diverged(log)
    assert said is not None and said.level == "fault" and "step 20" in (said.number or "")
    assert diverged(read_trainer_log(state(tmp_path, step(10)))) is None


def test_losses_of_other_evaluation_sets_are_named(tmp_path: Path) -> None:
    log = read_trainer_log(state(tmp_path, {"eval_wiki_loss": 3.0, "eval_wiki_runtime": 1.0, "step": 10}))
    assert log.events == () and "eval_wiki_loss" in log.notes[0]


def test_an_older_trainer_logs_no_gradient_norm(tmp_path: Path) -> None:
    lines = [{k: v for k, v in step(n).items() if k != "grad_norm"} for n in range(1, 20)]
    log = read_trainer_log(state(tmp_path, *lines))
    assert len(log.events) == 19 and "gradient_spikes" not in [f.name for f in find(None, log.events)]


@pytest.mark.parametrize("text", ["{", "[]", '{"log_history": 3}', '{"log_history": null}'])
def test_damage_is_told_with_the_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text(text)
    with pytest.raises(RunError, match="damaged") as caught:
        read_trainer_log(tmp_path / "trainer_state.json")
    assert str(tmp_path) in str(caught.value)


def test_the_newest_log_is_the_folders_own_or_of_its_last_checkpoint(tmp_path: Path) -> None:
    assert newest_log(tmp_path) is None
    for n in (9, 10, 100):
        state(tmp_path / f"checkpoint-{n}", step(n))
    (tmp_path / "checkpoint-best").mkdir()
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10", "checkpoint-100"]
    assert newest_log(tmp_path) == tmp_path / "checkpoint-100" / "trainer_state.json"
    assert newest_log(tmp_path / "checkpoint-9") == tmp_path / "checkpoint-9" / "trainer_state.json"
    own = state(tmp_path, step(1))
    assert newest_log(tmp_path) == own
