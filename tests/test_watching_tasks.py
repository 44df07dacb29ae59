"""A run that is watched on tasks of lm-evaluation-harness: slices beside the others, of the harness's own numbers."""

from pathlib import Path
from typing import Any

import pytest

from rankwise.errors import BenchmarkError
from rankwise.evaluate.harness import load_tokenizer, score
from rankwise.evaluate.harness_tasks import Asked, load_tasks
from rankwise.model.load import load_base
from rankwise.records import Failed, Slice, Watched
from rankwise.store import Run
from tests.lmtasks import write_tasks
from tests.training import carry_out, cli, losses, toy_job, toy_model, toy_run
from tests.watched import ability_files

pytest.importorskip("lm_eval", reason="the extra `eval` is not installed")
TASKS = ["small_arc", "small_texts"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"), positions=512)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def watched(folder: Path, model: Path, place: Path | None, method: str = "lora", **forgetting: Any) -> Run:
    """Watched on the tasks of that folder, or on none."""
    said = {"watch_steps": 3, **ability_files(folder), **forgetting}
    if place is not None:
        said = {"tasks": TASKS, "tasks_path": str(place), **said}
    return toy_run(folder, model, method, forgetting=said, train={"bf16": False})


def slices(run: Run) -> list[dict[str, Slice]]:
    return [{s.name: s for s in e.slices} for e in run.events() if isinstance(e, Watched)]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_tasks_are_slices_of_the_harness_s_numbers(method: str, model: Path, tasks: Path, tmp_path: Path) -> None:
    run = watched(tmp_path, model, tasks, method, limit=10)
    carry_out(run)
    first, *_, last = slices(run)
    assert list(first) == ["general text", "general questions", *TASKS]
    assert (first["small_arc"].metric, first["small_arc"].items, first["small_arc"].unit) == ("choice", 10, "share")
    assert (first["small_texts"].metric, first["small_texts"].items) == ("general_loss", 4)
    asked = Asked(("small_arc",), tasks, limit=10)
    (loaded,), _ = load_tasks(asked)
    config = run.plan().verdict.config
    assert config is not None and config.autocast is None
    base = score(load_base(model, dtype=config.dtype), load_tokenizer(model), loaded, asked).scores[0]
    assert first["small_arc"].baseline == last["small_arc"].baseline == pytest.approx(base.value)
    assert all(s.difference == 0 for s in first.values())
    assert last["small_texts"].difference != 0


def test_being_watched_changes_nothing_of_the_training(model: Path, tasks: Path, tmp_path: Path) -> None:
    one = carry_out(watched(tmp_path / "one", model, tasks))
    other = carry_out(watched(tmp_path / "other", model, None))
    assert losses(one) == losses(other)


@pytest.mark.prove
def test_two_processes_see_the_same_whether_or_not_the_model_is_split(
    model: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DDP shares the items; of a split model every process asks all. Each asks the base itself."""
    seen: dict[str, list[dict[str, Slice]]] = {}
    for parallel in ("ddp", "fsdp"):
        monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / parallel / "cache"))
        folder = tmp_path / parallel
        said = {"watch_steps": 3, **ability_files(folder), "tasks": [*TASKS, "small_answers"], "limit": 7}
        train = {"bf16": False, "max_steps": 3, "parallel": parallel}
        hardware = {"gpu": "cpu", "count": 2}
        forgetting = {**said, "tasks_path": str(tasks)}
        job = toy_job(folder, model, "lora", hardware=hardware, forgetting=forgetting, train=train)
        done = cli("train", job, "--out", folder / "run", "--json", timeout=900)
        assert done.returncode == 0, done.stderr
        seen[parallel] = slices(Run(folder / "run"))
    for shared, whole in zip(seen["ddp"], seen["fsdp"], strict=True):
        assert [s.name for s in shared.values()][2:] == [*TASKS, "small_answers"]
        for name in shared:
            assert shared[name].value == pytest.approx(whole[name].value, abs=1e-4), name


def test_a_task_whose_data_are_not_here_ends_the_run_before_it_begins(
    model: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run = watched(tmp_path, model, tasks, tasks=["small_arc", "not_here"])
    with pytest.raises(BenchmarkError, match="nobody/nothing"):
        carry_out(run)
    (last,) = run.events()[-1:]
    assert isinstance(last, Failed) and "nobody/nothing" in last.what and "load_dataset" in last.fix
