"""What happens to a run from outside: nothing is lost, and each error is clear. Kills and Ctrl-C are in test_road.py,
damaged checkpoints in train/test_checkpoints.py, short memory in train/test_microbatch.py.
"""

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankwise.errors import SpaceError
from rankwise.records import Step
from rankwise.store import Run
from tests.training import (
    carry_out,
    cli,
    end,
    losses,
    published,
    reached,
    start,
    toy_job,
    toy_model,
    toy_run,
    wait_for,
    weights,
    worker_pids,
)

DROPPING = {"name": "lora", "lora_dropout": 0.1}
LONG = {"max_steps": 900, "save_steps": 10, "eval_steps": 100, "learning_rate": 1e-3}
KILLS = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 40 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, left: int) -> Path:
    """A file that takes all but `left` bytes of the disk."""
    filler = folder / "somebody-else"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(folder).free - left))
    return filler


@pytest.mark.parametrize("left", [300_000, 0], ids=["less than a checkpoint", "nothing"])
def test_a_disk_that_fills_up_in_the_middle(model: Path, tmp_path: Path, small_disk: Path, left: int) -> None:
    """Somebody else's file takes the room. The run fails in one sentence, loses nothing, and goes on when there is
    room.
    """
    train = {"max_steps": 12, "save_steps": 4, "eval_steps": 4}
    whole = toy_run(tmp_path / "whole", model, DROPPING, train=train)
    carry_out(whole)
    run = toy_run(small_disk, model, DROPPING, train=train)
    stopped = _trained_while_filling(run, small_disk, after=6, left=left)
    assert "disk" in stopped.what and "free" in stopped.what and "Traceback" not in str(stopped)
    assert run.state() in ("failed", "killed")  # with no byte left, not even the failure can be written
    assert sorted(p.name for p in run.checkpoints.glob("checkpoint-*")) == ["checkpoint-4"]
    assert not [p for p in run.checkpoints.iterdir() if p.name.startswith(".")]
    (small_disk / "somebody-else").unlink()
    carry_out(run, resume=True)
    assert losses(run.events()) == losses(whole.events())
    assert weights(published(run)) == weights(published(whole))


def _trained_while_filling(run: Run, disk: Path, *, after: int, left: int) -> SpaceError:
    import threading

    from rankwise.worker import work

    with pytest.raises(SpaceError) as error:
        for event in work(run, resume=False, stop_signal=threading.Event()):
            if isinstance(event, Step) and event.step == after:
                fill(disk, left)
    return error.value


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(model: Path, small_disk: Path) -> None:
    job = toy_job(small_disk, model, DROPPING)
    fill(small_disk, 2_000_000)
    done = cli("train", job, "--out", small_disk / "R", "--json")
    assert done.returncode == 1 and "not enough disk" in done.stderr and "Traceback" not in done.stderr
    assert not (small_disk / "R").exists()


@pytest.mark.prove
def test_killed_twenty_times_at_random_steps(model: Path, tmp_path: Path) -> None:
    """kill -9 of the training process, or of the command line that started it, at twenty random steps: the run ends as
    the one that was never touched.
    """
    whole = toy_run(tmp_path / "whole", model, DROPPING, train=LONG)
    carry_out(whole)
    toy_job(tmp_path / "job", model, DROPPING, train=LONG)
    run, draw, at, kills = Run(tmp_path / "R"), random.Random(7), 0, 0
    while kills < KILLS:
        at = min(at + draw.randrange(5, 50), LONG["max_steps"] - 50)
        process = start("train", tmp_path / "job" / "job.yaml", "--out", run.folder, "--resume")
        try:
            wait_for(lambda step=at: run.plan_path.is_file() and reached(run, step)(), process)
            (worker,) = worker_pids(run)
            os.kill(draw.choice([process.pid, worker]), signal.SIGKILL)
            kills += 1
            process.communicate(timeout=60)
            wait_for(lambda: not worker_pids(run), seconds=30)
        finally:
            end(process)
        at = max(e.step for e in run.events() if isinstance(e, Step))
    done = cli("train", run.folder, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert run.state() == "finished" and kills == KILLS
    assert losses(run.events()) == losses(whole.events())
    assert weights(run.adapter) == weights(whole.adapter)
