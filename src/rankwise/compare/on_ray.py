"""Arms as tasks of a Ray cluster whose machines see the folder of the comparison, with Rankwise installed on each."""

import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from rankwise.compare.folder import Folder
from rankwise.compare.processes import command
from rankwise.errors import UsageError


def connect(address: str) -> None:
    """Join a cluster once. Raises UsageError: there is none at this address."""
    if ray.is_initialized():
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise UsageError(
            f"--ray {address}: {first}",
            expected="the address of a running cluster, such as auto or 10.0.0.1:6379",
            fix="`ray start --head` begins one on this machine",
        ) from None


def slots(address: str, wanted: Mapping[str, float]) -> int:
    """Arms that the cluster can work off at one time. Raises UsageError: none.

    Args:
        wanted: resources of one arm, by Ray's names.
    """
    connect(address)
    found = sum(_fit(node["Resources"], wanted) for node in ray.nodes() if node["Alive"])
    if found == 0:
        raise UsageError(
            f"--ray {address}: no machine of the cluster has what one arm takes ({_words(wanted)})",
            expected="a machine as the job's hardware says",
        )
    return found


def _fit(has: Mapping[str, float], wanted: Mapping[str, float]) -> int:
    return min(int(has.get(name, 0) // amount) for name, amount in wanted.items())


def _words(wanted: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())


class OnRay:
    """An arm's process on some machine of a cluster. Its log is kept there where the folder is."""

    def __init__(self, folder: Folder, arm: str, address: str, wanted: Mapping[str, float], flags: Sequence[str] = ()):
        connect(address)
        task = ray.remote(_work).options(num_cpus=wanted.get("CPU", 1), num_gpus=wanted.get("GPU", 0), max_retries=0)
        absolute = Folder(folder.path.resolve())
        self.task: Any = task.remote(
            command(absolute, arm, flags)[1:], str(absolute.log_path(arm)), os.environ.get("PYTHONPATH")
        )

    def code(self) -> int | None:
        done, _ = ray.wait([self.task], timeout=0)
        if not done:
            return None
        try:
            return int(ray.get(self.task))
        except ray.exceptions.RayError:
            return 1

    def ask_to_stop(self) -> None:
        """Its last checkpoint is what is left: a task cannot be told anything."""
        ray.cancel(self.task, force=True)

    def kill(self) -> None:
        if self.code() is None:
            ray.cancel(self.task, force=True)


def _work(arguments: Sequence[str], log: str, path: str | None) -> int:
    """On the machine that works: the arm's process, which ends with this one."""
    import sys

    environment = os.environ | ({"PYTHONPATH": path} if path else {})
    with open(log, "a") as file:  # noqa: PTH123  a cluster's worker imports as little as it can
        worker = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=file, stderr=file, env=environment
        )
    return worker.wait()
