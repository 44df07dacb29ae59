"""The batch script on a real Slurm: it trains, saves before its time is over, waits in line and goes on."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rankwise import api
from rankwise.files import read_record
from rankwise.launch.order import Order, Wishes, order
from rankwise.launch.targets import TARGETS
from rankwise.records import Plan
from rankwise.store import Run
from tests.launch.orders import planned
from tests.launch.slurm_cluster import ask, cluster, missing
from tests.training import SRC, losses, toy_job, toy_model

pytestmark = pytest.mark.prove


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    if absent := missing():
        pytest.skip(f"no {absent[0]} here: Debian's packages slurmctld, slurmd and slurm-client have it")
    if os.geteuid() != 0:
        pytest.skip("slurmd starts the tasks of others: only root can run this cluster")
    with cluster(tmp_path_factory.mktemp("slurm") / "cluster") as environment:
        yield environment


def environment_at(script: Path, rankwise: str) -> None:
    """What the script's own `pip install` would have made, with this rankwise in it."""
    (found,) = re.findall(r"^environment=(.*)$", script.read_text(), re.MULTILINE)
    folder = Path(found)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = [str(SRC), *(path for path in sys.path if path.endswith("site-packages"))]
    (packages / "ours.pth").write_text("\n".join(ours) + "\n")
    (folder / "bin" / "rankwise").write_text(rankwise)
    (folder / "bin" / "rankwise").chmod(0o755)
    (folder / ".complete").touch()


def submitted(slurm: dict[str, str], script: Path) -> str:
    return ask(slurm, "sbatch", "--parsable", str(script), cwd=script.parent)


def wait_until(what: str, condition: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def over(slurm: dict[str, str], job: str) -> bool:
    return "JobState=COMPLETED" in ask(slurm, "scontrol", "show", "job", job) or has_failed(slurm, job)


def has_failed(slurm: dict[str, str], job: str) -> bool:
    return "JobState=FAILED" in ask(slurm, "scontrol", "show", "job", job)


def log_of(script: Path, job: str) -> str:
    (path,) = script.parent.glob(f"*-{job}.log")
    return path.read_text()


def test_a_job_saves_before_its_time_is_over_and_goes_on_at_its_next_turn(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    model = toy_model(tmp_path / "model")
    job = toy_job(tmp_path, model, train={"max_steps": 400, "save_steps": 100, "eval_steps": 100})
    whole = api.prepare(job, tmp_path / "unbroken", {})
    unbroken = list(api.train(whole))
    path = api.write_plan(api.plan(job), tmp_path / "planned") / "plan.json"
    made = api.launch(path, "slurm", tmp_path / "files", Wishes(shared=str(tmp_path), hours=1))
    (script,) = made.files
    environment_at(script, '#!/bin/sh\nexec python -m rankwise "$@"\n')
    run = Run(tmp_path / "runs" / f"{read_record(path, Plan).job.name}-{read_record(path, Plan).job_hash[:8]}")

    number = submitted(slurm, script)
    wait_until("two steps", lambda: len(losses(run.events())) > 2)
    ask(slurm, "scancel", "--batch", "--signal=USR1", number)  # as Slurm does 2 minutes before the limit
    wait_until("a stop", lambda: any(event.event == "stopped" for event in run.raw_events()))
    stopped_at = len(losses(run.events()))
    wait_until("the end", lambda: over(slurm, number))
    assert 2 < stopped_at < 400, log_of(script, number)
    assert "Restarts=1" in ask(slurm, "scontrol", "show", "job", number)
    assert run.state() == "finished", log_of(script, number)
    assert losses(run.events()) == losses(unbroken)

    again = submitted(slurm, script)
    wait_until("the second end", lambda: over(slurm, again))
    assert "has finished: nothing is left to do" in log_of(script, again) and not has_failed(slurm, again)


def two_nodes(tmp_path: Path, rankwise: str) -> tuple[Path, Order]:
    """The script of a plan for two nodes, with a command in rankwise's place, on nodes without GPUs."""
    asked = replace(order(planned(2, 4), tmp_path / "plan.json", None, 0, Wishes(shared=str(tmp_path))), gpu=None)
    script = tmp_path / "train.sbatch"
    fetch = "python -c 'from rankwise.model.locate import locate"
    text = TARGETS["slurm"](asked).texts["train.sbatch"]
    script.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith(fetch)))
    environment_at(script, rankwise)
    return script, asked


def test_every_node_is_told_who_is_who(slurm: dict[str, str], tmp_path: Path) -> None:
    tell = 'env | grep "^PET_" | sort; echo "$@"'
    script, asked = two_nodes(tmp_path, f'#!/bin/bash\n{{ {tell}; }} > {tmp_path}/told-"$PET_NODE_RANK"\n')
    number = submitted(slurm, script)
    wait_until("the end", lambda: over(slurm, number))
    assert not has_failed(slurm, number), log_of(script, number)
    told = [(tmp_path / f"told-{rank}").read_text() for rank in range(2)]
    assert told[1] == told[0].replace("PET_NODE_RANK=0", "PET_NODE_RANK=1")
    assert told[0].splitlines() == [
        "PET_MASTER_ADDR=n1",
        f"PET_MASTER_PORT={20_000 + int(number) % 10_000}",
        "PET_NNODES=2",
        "PET_NODE_RANK=0",
        "PET_NPROC_PER_NODE=4",
        f"train {tmp_path / 'plan.json'} --out {tmp_path / 'runs' / asked.run} --resume",
    ]


SAVES_ON_STOP = """#!/bin/bash
mkdir -p "$4"; touch "$4/events.jsonl"
echo "$@" >> "$4/said-$PET_NODE_RANK"
[ "$(wc -l < "$4/said-$PET_NODE_RANK")" -gt 1 ] && exit 0
while [ ! -e "$4/stop" ]; do sleep 0.2; done
sleep 2; echo saved >> "$4/said-$PET_NODE_RANK"; rm -f "$4/stop"; exit 1
"""


def test_two_nodes_stop_by_a_file_and_go_on(slurm: dict[str, str], tmp_path: Path) -> None:
    script, asked = two_nodes(tmp_path, SAVES_ON_STOP)
    number, run = submitted(slurm, script), tmp_path / "runs" / asked.run
    wait_until("both nodes", lambda: len(list(run.glob("said-*"))) == 2)
    ask(slurm, "scancel", "--batch", "--signal=USR1", number)
    wait_until("the end", lambda: over(slurm, number))
    assert not has_failed(slurm, number), log_of(script, number)
    for rank in range(2):
        first, saved, second = (run / f"said-{rank}").read_text().splitlines()
        assert saved == "saved" and second == first


SAVES_ON_TERM = """#!/bin/bash
mkdir -p "$4"; touch "$4/events.jsonl"
echo "$@" >> "$4/said-$PET_NODE_RANK"
[ "$(wc -l < "$4/said-$PET_NODE_RANK")" -gt 1 ] && exit 0
trap 'sleep 2; echo saved >> "$4/said-$PET_NODE_RANK"; exit 1' TERM
while :; do sleep 0.2; done
"""


def test_two_nodes_that_are_preempted_have_time_to_save(slurm: dict[str, str], tmp_path: Path) -> None:
    script, asked = two_nodes(tmp_path, SAVES_ON_TERM)
    number, run = submitted(slurm, script), tmp_path / "runs" / asked.run
    wait_until("both nodes", lambda: len(list(run.glob("said-*"))) == 2)
    ask(slurm, "scontrol", "requeue", number)
    wait_until("the end", lambda: over(slurm, number))
    for rank in range(2):
        first, saved, second = (run / f"said-{rank}").read_text().splitlines()
        assert saved == "saved" and second == first
