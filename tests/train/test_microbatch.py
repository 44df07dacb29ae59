"""When memory runs out, fewer rows go through the model at once, and the optimizer sees the same step."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rankwise.errors import OutOfMemory, TrainingError
from rankwise.records import Note, Saved, Step
from rankwise.store import Run
from rankwise.train.microbatch import Again, MicroBatch
from tests.training import carry_out, environment, losses, published, toy_model, toy_run, weights

ROWS = 16
# A first step alone decides about memory: 16 rows of a few hundred tokens against a vocabulary of a thousand.
SCRIPT = """
import resource, sys, threading
from pathlib import Path
import psutil
from rankwise.records import Started
from rankwise.store import Run
from rankwise.worker import work

for event in work(Run(Path(sys.argv[1])), resume=sys.argv[3] == "resume", stop_signal=threading.Event()):
    if isinstance(event, Started):  # everything is loaded: from here on so many bytes more, and not one beyond
        limit = psutil.Process().memory_info().vms + int(sys.argv[2])
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
"""


def test_half_the_rows_from_the_same_random_numbers() -> None:
    micro, drawn = MicroBatch(8, 32, "here"), []

    def work() -> str:
        drawn.append((micro.rows, float(torch.rand(()))))
        if micro.rows > 2:
            torch.empty(2**60, dtype=torch.uint8)  # what torch says when a CPU has no memory left
        return "done"

    notes, attempt, forgotten = [], micro.attempt(work, lambda: forgotten.append(micro.rows)), []
    try:
        while True:
            notes.append(next(attempt).text)
    except StopIteration as end:
        assert end.value == "done"
    assert [rows for rows, _ in drawn] == [8, 4, 2] and len({number for _, number in drawn}) == 1
    assert forgotten == [8, 4] and len(notes) == 2
    assert "OUT OF MEMORY with 8 rows" in notes[0] and "from here on 4" in notes[0] and "32 rows" in notes[0]


@pytest.mark.parametrize(("rows", "again"), [(1, "here"), (1, "from a checkpoint"), (8, "never")])
def test_nothing_smaller_is_one_clear_error(rows: int, again: Again) -> None:
    def work() -> None:
        torch.empty(2**60, dtype=torch.uint8)

    with pytest.raises(TrainingError, match=f"out of memory with {rows} row") as error:
        next(MicroBatch(rows, 8, again).attempt(work, lambda: None))
    assert "gradient_checkpointing" in error.value.fix and not isinstance(error.value, OutOfMemory)


def test_what_several_processes_share_is_taken_again_from_a_checkpoint() -> None:
    with pytest.raises(OutOfMemory, match="out of memory with 8 rows") as error:
        next(MicroBatch(8, 16, "from a checkpoint").attempt(lambda: torch.empty(2**60), lambda: None))
    assert error.value.rows == 8


def test_other_faults_are_not_memory() -> None:
    def work() -> None:
        torch.ones(2) @ torch.ones(3)

    with pytest.raises(RuntimeError, match=r"size|inconsistent"):
        next(MicroBatch(8, 8, "here").attempt(work, lambda: None))


def under_a_limit(run: Run, mb: int, how: str = "begin") -> subprocess.CompletedProcess[str]:
    """Carried out in a process that gets `mb` more once the model is loaded."""
    command = [sys.executable, "-c", SCRIPT, str(run.folder), str(mb * 2**20), how]
    # The limit counts addresses: the arena of any new thread would take 64 MiB of them, used or not.
    env = {**environment(), "MALLOC_ARENA_MAX": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


def long_job(folder: Path, model: Path) -> Run:
    rows = [
        {"messages": [{"role": "user", "content": f"{i} yes " * 60}, {"role": "assistant", "content": "yes. " * 60}]}
        for i in range(3 * ROWS)
    ]
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train: dict[str, Any] = {"per_device_train_batch_size": ROWS, "max_steps": 4, "bf16": False, "max_length": 2048}
    return toy_run(folder, model, "lora", train=train)


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="this system limits no process's memory")
def test_a_run_that_gets_short_of_memory_takes_smaller_passes(tmp_path: Path) -> None:
    """A real limit: the run that may not have its batch ends where the run that may does, and resumes with its own."""
    model = toy_model(tmp_path, positions=2048)
    free = long_job(tmp_path / "free", model)
    carry_out(free)
    short = long_job(tmp_path / "short", model)
    done = under_a_limit(short, 80)
    assert done.returncode == 0, done.stderr[-2000:]
    notes = [e.text for e in short.events() if isinstance(e, Note) and "OUT OF MEMORY" in e.text]
    assert notes and f"with {ROWS} rows" in notes[0] and f"each step still learns from {ROWS} rows" in notes[0]
    assert losses(short.events()) == pytest.approx(losses(free.events()), rel=1e-4)
    last = max(e.step for e in short.events() if isinstance(e, Saved))
    state = json.loads((short.checkpoints / f"checkpoint-{last}" / "trainer_state.json").read_text())
    assert state["train_batch_size"] < ROWS
    assert all(e.tokens == f.tokens for e, f in zip(steps(short), steps(free), strict=True))
    assert weights(published(short)).keys() == weights(published(free)).keys()


def steps(run: Run) -> list[Step]:
    return [e for e in run.events() if isinstance(e, Step)]
