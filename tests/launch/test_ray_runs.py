"""The script on a real cluster of Ray on this machine: it trains; every node is told who is who; a fault is retried."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rankwise import api
from rankwise.launch.order import Wishes, order
from rankwise.launch.targets import TARGETS
from rankwise.store import Run
from tests.launch.orders import planned
from tests.training import SRC, losses, toy_job, toy_model

pytestmark = pytest.mark.prove
NODES = 2


@pytest.fixture(scope="module")
def ray(validators: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Two nodes of four cores on this machine; yields the environment of what speaks to them."""
    home = tmp_path_factory.mktemp("ray")
    paths = [str(SRC), *(path for path in sys.path if path.endswith("site-packages"))]
    environment = os.environ | {
        "HOME": str(home),
        "PATH": f"{validators}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(paths[:1]),
        "HF_HUB_OFFLINE": "1",
        "RAY_ADDRESS": "127.0.0.1:26379",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
    }
    small = ["--num-cpus=4", "--object-store-memory=100000000", "--block"]
    starts = [
        ["start", "--head", "--port=26379", "--include-dashboard=false", *small],
        ["start", "--address=127.0.0.1:26379", *small],
    ]
    nodes = []
    try:
        for number, start in enumerate(starts):
            with (home / f"{number}.log").open("w") as log:
                nodes.append(
                    subprocess.Popen(
                        [validators / "ray", *start], env=environment, stdout=log, stderr=log, start_new_session=True
                    )
                )
            waited(environment, validators, number + 1)
        yield environment
    finally:
        for node in reversed(nodes):
            os.killpg(node.pid, signal.SIGTERM)
            node.wait(60)


def waited(environment: dict[str, str], programs: Path, nodes: int) -> None:
    code = f"""
import ray, time
for _ in range(120):
    try:
        ray.init(log_to_driver=False, logging_level="ERROR")
        if sum(node["Alive"] for node in ray.nodes()) == {nodes}:
            break
        ray.shutdown()
    except ConnectionError:
        pass
    time.sleep(1)
else:
    raise SystemExit("no {nodes} nodes")
"""
    done = subprocess.run(
        [programs / "python", "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def run_script(environment: dict[str, str], programs: Path, script: Path) -> str:
    done = subprocess.run(
        [programs / "python", script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def test_a_job_trains_on_ray_and_a_second_start_finds_it_done(
    ray: dict[str, str], validators: Path, tmp_path: Path
) -> None:
    job = toy_job(tmp_path, toy_model(tmp_path / "model"))
    unbroken = list(api.train(api.prepare(job, tmp_path / "unbroken", {})))
    path = api.write_plan(api.plan(job), tmp_path / "planned") / "plan.json"
    made = api.launch(path, "ray", tmp_path / "files", Wishes(shared=str(tmp_path), hours=1))
    run_script(ray, validators, made.files[0])
    (folder,) = (tmp_path / "runs").glob("*/plan.json")
    run = Run(folder.parent)
    assert run.state() == "finished" and losses(run.events()) == losses(unbroken)
    assert "has finished: nothing is left to do" in run_script(ray, validators, made.files[0])


STANDS_IN = """
import os, sys, time
from pathlib import Path
told = {name: value for name, value in sorted(os.environ.items()) if name.startswith("PET_")}
left = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} & set(os.environ)
folder = Path(__file__).parents[2] / "told"
folder.mkdir(exist_ok=True)
rank = told["PET_NODE_RANK"]
with (folder / rank).open("a") as file:
    file.write(f"{told} {sorted(left)} {sys.argv[1:]}\\n")
sys.exit(1 if rank == "1" and len((folder / rank).read_text().splitlines()) == 1 else 0)
"""


def test_two_nodes_are_told_who_is_who_and_a_fault_of_one_starts_both_again(
    ray: dict[str, str], validators: Path, tmp_path: Path
) -> None:
    """A module in rankwise's place writes down what it was told, and fails on one node at its first start."""
    asked = order(planned(NODES, 1), tmp_path / "plan.json", None, 0, Wishes(shared=str(tmp_path), hours=1))
    text = TARGETS["ray"](replace(asked, gpu=None, cores=2, model=str(tmp_path))).texts["train_on_ray.py"]
    (tmp_path / "train_on_ray.py").write_text(text)
    instead = tmp_path / "instead" / "rankwise"
    instead.mkdir(parents=True)
    (instead / "__init__.py").touch()
    (instead / "__main__.py").write_text(STANDS_IN)
    as_submitted = {"runtime_env": {"env_vars": {"PYTHONPATH": str(instead.parent)}}}
    run_script(
        ray | {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(as_submitted)}, validators, tmp_path / "train_on_ray.py"
    )
    told = [(tmp_path / "told" / str(rank)).read_text().splitlines() for rank in range(NODES)]
    assert [len(lines) for lines in told] == [2, 2]
    address, port = re.findall(r"'PET_MASTER_ADDR': '([^']+)', 'PET_MASTER_PORT': '(\d+)'", told[0][1])[0]
    for rank in range(NODES):
        variables = {
            "PET_MASTER_ADDR": address,
            "PET_MASTER_PORT": port,
            "PET_NNODES": "2",
            "PET_NODE_RANK": str(rank),
            "PET_NPROC_PER_NODE": "1",
        }
        said = ["train", str(tmp_path / "plan.json"), "--out", str(tmp_path / "runs" / asked.run), "--resume"]
        assert told[rank][1] == f"{variables} [] {said}"
