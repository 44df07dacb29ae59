"""`rankwise train` on several processes: stopped together, ended together, and no process left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from rankwise import api
from rankwise.errors import TrainingError
from rankwise.records import Failed, Started, Step
from rankwise.store import Run
from tests.train.engines.two import EASY, SIZES, environment_of_two, planned
from tests.training import (
    carry_out,
    command,
    end,
    losses,
    reached,
    toy_job,
    toy_model,
    wait_for,
    worker_pids,
    write_jsonl,
)

LORA = {"name": "lora", "r": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


def start(*arguments: object, **variables: str) -> subprocess.Popen[str]:
    """`rankwise ...` left running."""
    return subprocess.Popen(
        command(*arguments),
        env={**environment_of_two(), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )


def workers(run: Run) -> dict[int, int]:
    """Rank -> process id of the workers (torchrun itself has no rank)."""
    found = {}
    for pid in worker_pids(run):
        try:
            said = psutil.Process(pid).environ()
        except psutil.Error:
            continue
        if "RANK" in said:
            found[int(said["RANK"])] = pid
    return found


def left(run: Run) -> list[str]:
    """Command lines of all processes of a run: launcher, torchrun, workers."""
    lines = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if str(run.folder) in line and "rankwise" in line]


def long(folder: Path, model: Path, **train: Any) -> Run:
    """More steps than a test waits for."""
    return planned(folder, model, LORA, "ddp", max_steps=100_000, save_steps=50_000, eval_steps=50_000, **train)


def test_a_process_that_dies_ends_the_run_with_one_error(model: Path, tmp_path: Path) -> None:
    run = long(tmp_path, model)
    process = start("train", run.folder, "--out", run.folder)
    try:
        wait_for(reached(run, 2), process)
        os.kill(workers(run)[1], signal.SIGKILL)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "process 1 of this run was killed by SIGKILL; the others were ended with it" in said
        last = run.raw_events()[-1]
        assert isinstance(last, Failed) and "process 1 of this run was killed by SIGKILL" in last.what
        assert run.state() == "failed" and not left(run)
    finally:
        end(process)


@pytest.mark.prove
def test_asked_to_stop_all_save_after_the_same_step_and_go_on(model: Path, tmp_path: Path) -> None:
    run = planned(
        tmp_path / "run", model, LORA, "ddp", max_steps=60, num_train_epochs=100, save_steps=60, eval_steps=60
    )
    process = start("train", run.folder, "--out", run.folder)
    try:
        wait_for(reached(run, 3), process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 130 or "stopped at step" in said
        assert run.state() == "stopped" and not left(run)
        again = start("train", run.folder, "--resume")
        _, said = again.communicate(timeout=240)
        assert again.returncode == 0, said
    finally:
        end(process)
    assert run.state() == "finished" and len(losses(run.events())) == 60
    assert all(e.world_size == 2 for e in run.raw_events() if isinstance(e, Started))


@pytest.mark.prove
def test_a_launcher_that_is_killed_leaves_no_process(model: Path, tmp_path: Path) -> None:
    run = long(tmp_path, model)
    process = start("train", run.folder, "--out", run.folder)
    try:
        wait_for(reached(run, 1), process)
        process.send_signal(signal.SIGKILL)
        wait_for(lambda: not left(run) and run.state() != "running", seconds=60)
    finally:
        end(process)
    assert run.state() in ("killed", "failed")


@pytest.mark.prove
def test_two_nodes_meet_by_torchruns_variables(model: Path, tmp_path: Path) -> None:
    """Two launchers on this machine stand for two nodes: one device each, one folder, one plan."""
    train = {**SIZES, **EASY, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    hardware = {"gpu": "cpu", "count": 1, "nodes": 2}
    job = toy_job(tmp_path, model, LORA, rows=23, hardware=hardware, train=train)
    (tmp_path / "plan.json").write_text(api.plan(job).model_dump_json(by_alias=True))
    port = str(20_000 + os.getpid() % 20_000)
    out = tmp_path / "shared"
    variables = {
        "PET_NNODES": "2",
        "PET_NPROC_PER_NODE": "1",
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": port,
    }
    nodes = [
        start("train", tmp_path / "plan.json", "--out", out, **variables, PET_NODE_RANK=rank) for rank in ("1", "0")
    ]
    try:
        for process in nodes:
            _, said = process.communicate(timeout=300)
            assert process.returncode == 0, said
    finally:
        for process in nodes:
            end(process)
    run = Run(out)
    assert run.state() == "finished" and len(losses(run.events())) == 3
    assert [e.world_size for e in run.events() if isinstance(e, Started)] == [2]
    assert api.verify(run)[0].passed


@pytest.mark.prove
def test_a_worker_that_somebody_else_starts_reads_the_usual_variables(model: Path, tmp_path: Path) -> None:
    """As srun and Ray Train do: no torchrun, no standard input."""
    run = planned(tmp_path / "two", model, LORA, "ddp")
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(21_000 + os.getpid() % 20_000)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "rankwise.worker", str(run.folder)],
            env={**environment_of_two(), **variables, "RANK": rank, "LOCAL_RANK": rank},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    said = [process.communicate(timeout=240)[0] for process in processes]
    assert [p.returncode for p in processes] == [0, 0] and said[0].count('"event":"step"') == 3 and said[1] == ""
    alone = planned(tmp_path / "one", model, LORA, None)
    assert losses(run.events()) == pytest.approx(losses(carry_out(alone)), rel=1e-5)


LIMIT = """
import os, resource, threading, time
from pathlib import Path

def limit():
    events, before = Path(os.environ["EVENTS"]), None
    while True:
        started = events.read_text().count('"started"') if events.exists() else 0
        before = started if before is None else before
        if started > before:  # everything is loaded: from here on so many bytes more, and not one beyond
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * os.sysconf("SC_PAGE_SIZE") + 2**20 * int(os.environ["MOST_MB"])
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            return
        time.sleep(0.001)

if os.environ.get("RANK") == "1":
    threading.Thread(target=limit, daemon=True).start()
"""


def long_rows(count: int) -> list[dict[str, Any]]:
    """A step of sixteen decides about memory: hundreds of tokens each against a vocabulary of a thousand."""
    return [
        {"messages": [{"role": "user", "content": f"{i} yes " * 60}, {"role": "assistant", "content": "yes. " * 60}]}
        for i in range(count)
    ]


@pytest.mark.prove
def test_one_of_several_that_runs_out_of_memory_makes_all_take_smaller_passes(tmp_path: Path) -> None:
    """A real limit on the second process alone, in each of its starts."""
    model = toy_model(tmp_path, positions=2048)
    sizes = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "max_length": 2048, "bf16": False}
    for name in ("free", "short"):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "train.jsonl", long_rows(100))
    free, short = (planned(tmp_path / name, model, LORA, "ddp", **sizes) for name in ("free", "short"))
    assert start("train", free.folder, "--out", free.folder).wait(240) == 0
    (tmp_path / "sitecustomize.py").write_text(LIMIT)
    paths = f"{tmp_path}{os.pathsep}{environment_of_two()['PYTHONPATH']}"
    limits = {"EVENTS": str(short.folder / "events.jsonl"), "MOST_MB": "40"}
    process = start("train", short.folder, "--out", short.folder, PYTHONPATH=paths, **limits)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "OUT OF MEMORY with 16 rows" in said and "started again from the last checkpoint with 8" in said
    assert losses(short.events()) == pytest.approx(losses(free.events()), rel=1e-4)
    assert not [e for e in short.events() if isinstance(e, Failed)]


def test_a_plan_for_two_that_one_process_carries_out_is_stopped(model: Path, tmp_path: Path) -> None:
    run = planned(tmp_path, model, LORA, "fsdp")
    began = time.monotonic()
    with pytest.raises(TrainingError, match="this plan is for 2 processes, and 1 runs"):
        carry_out(run)
    assert time.monotonic() - began < 60 and run.state() == "failed"
    assert not [e for e in run.raw_events() if isinstance(e, (Started, Step))]
