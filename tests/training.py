"""Small real runs: a toy task that a tiny model can learn, a job for it, and ways to carry it out here or in a
process.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from rankwise import api
from rankwise.records import Event, Plan, Step
from rankwise.store import Run
from rankwise.worker import work
from tests.tiny import tiny_llama

torch.set_num_threads(1)  # tiny matrices gain nothing from a second thread, and lose to whoever else computes here
SRC = Path(__file__).resolve().parents[1] / "src"
METHOD_NAMES = ("full", "lora", "qlora")
# Rates at which a tiny model learns in a few dozen steps.
RATES = {
    "full": 1e-2,
    "lora": 2e-2,
    "qlora": 2e-2,
    "lora-8bit": 2e-2,
    "pissa": 2e-3,
    "rslora": 1e-2,
    "dora": 2e-2,
    "ia3": 5e-2,
    "prompt": 5e-2,
    "prefix": 1.0,
    "p_tuning": 5e-3,
    "bottleneck": 1e-2,
}
WORDS = ["yes", "no", "open", "prices", "hours", "thank you"]


def toy_model(folder: Path, **options: Any) -> Path:
    """A tiny Llama whose matrices are large enough for 4-bit blocks."""
    return tiny_llama(folder, **{"hidden": 64, "intermediate": 128, **options})


def toy_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Conversations of different lengths: `<number> <word>` is answered with the word."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        word = draw.choice(WORDS)
        filler = " please" * draw.randrange(4)
        user, said = f"{number} {word}{filler}", f"{word}."
        rows.append({"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": said}]})
    return rows


def write_jsonl(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def toy_job(folder: Path, model: Path | str, method: Any = "lora", rows: int = 24, **changes: Any) -> Path:
    """job.yaml and its data in `folder`. `train` in changes is laid over small settings; other keys replace the
    job's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "train.jsonl").exists():
        write_jsonl(folder / "train.jsonl", toy_rows(rows))
    name = method if isinstance(method, str) else method["name"]
    train = {
        "max_steps": 6,
        "learning_rate": RATES[name],
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "save_steps": 2,
        "eval_steps": 2,
        **changes.pop("train", {}),
    }
    job = {
        "goal": "instruction",
        "model": str(model),
        "data": {"train": "train.jsonl", "validation": 0.25},
        "hardware": "cpu",
        "method": method,
        "forgetting": {"watch_steps": 0},  # looks have tests of their own: tests/test_watching.py
        "train": train,
        **changes,
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return path


def toy_run(folder: Path, model: Path | str, method: Any = "lora", **changes: Any) -> Run:
    """A planned run in `folder`/run, ready to train."""
    return api.prepare(toy_job(folder, model, method, **changes), folder / "run", {})


def carry_out(run: Run, *, resume: bool = False, stop_after: int | None = None) -> list[Event]:
    """Train here, in this process; with `stop_after`, ask to stop as soon as that step was taken."""
    stop = threading.Event()
    events = []
    for event in work(run, resume=resume, stop_signal=stop):
        events.append(event)
        if isinstance(event, Step) and event.step == stop_after:
            stop.set()
    return events


def trained(folder: Path, model: Path | str, method: Any = "lora", **changes: Any) -> Run:
    run = toy_run(folder, model, method, **changes)
    carry_out(run)
    return run


def losses(events: Sequence[Event]) -> list[float]:
    """Training loss of each step, in order."""
    return [event.loss for event in events if isinstance(event, Step)]


def published(run: Run) -> Path:
    """The folder that holds the result: adapter/ or model/."""
    return run.adapter if run.adapter.is_dir() else run.model


def weights(folder: Path) -> dict[str, bytes]:
    """The bytes of a folder's weight files."""
    found = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert found
    return found


def edited(run: Run, **config: Any) -> Run:
    """The same run with its plan's configuration changed (a plan that nobody but a test would write)."""
    plan: Plan = run.plan()
    assert plan.verdict.config is not None
    verdict = plan.verdict.model_copy(update={"config": plan.verdict.config.model_copy(update=config)})
    run.plan_path.write_text(plan.model_copy(update={"verdict": verdict}).model_dump_json(by_alias=True))
    return run


# -- real processes --------------------------------------------------------------------------------


def cli(*arguments: object, cwd: Path | None = None, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """`rankwise ...` in a process of its own."""
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )


def start(*arguments: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    """`rankwise ...` left running, with the signals of a terminal: a shell's background job passes on that Ctrl-C is
    ignored.
    """
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rankwise", *map(str, arguments)]


def environment() -> dict[str, str]:
    path = os.pathsep.join(p for p in (str(SRC), os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str] | None = None, seconds: float = 180) -> Any:
    """What `condition` returns as soon as it is true; fails when the process ends first."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the process ended with {process.returncode}: {process.communicate()[1]}")
        time.sleep(0.02)
    raise AssertionError(f"nothing after {seconds} s")


def reached(run: Run, step: int) -> Callable[[], bool]:
    """Has this run written its event of `step`?"""
    return lambda: run.events_path.is_file() and f'"event":"step","step":{step},' in run.events_path.read_text()


def worker_pids(run: Run) -> list[int]:
    """The training processes of a run, found by their command line."""
    return [pid for pid, line in _processes() if "rankwise.worker" in line and str(run.folder) in line]


def _processes() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z":
                yield int(entry.name), line


def end(process: subprocess.Popen[str]) -> None:
    """Clean up after a test that failed half-way."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.communicate()
