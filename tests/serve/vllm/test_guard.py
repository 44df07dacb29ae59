"""The guard ends what it started: on a farewell, on the death of whoever holds it, and when the server ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from rankwise.serve.vllm import guard

COMMAND = [sys.executable, "-I", guard.__file__]
FAMILY = "sleep 300 & sleep 300 & wait"  # a server with children of its own


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def family(pid: int, count: int) -> list[psutil.Process]:
    """The guard's descendants, once there are so many."""
    until(lambda: len(psutil.Process(pid).children(recursive=True)) >= count)
    return psutil.Process(pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)


def test_closing_its_input_ends_all_of_them() -> None:
    held = subprocess.Popen([*COMMAND, "bash", "-c", FAMILY], stdin=subprocess.PIPE, start_new_session=True)
    children = family(held.pid, 3)
    assert held.stdin is not None
    held.stdin.close()
    held.wait(timeout=20)
    assert gone(children)


def test_a_server_that_ignores_the_farewell_is_killed(tmp_path: Path) -> None:
    deaf = f"trap '' TERM; touch {tmp_path / 'deaf'}; while true; do sleep 0.2; done"
    held = subprocess.Popen([*COMMAND, "bash", "-c", deaf], stdin=subprocess.PIPE, start_new_session=True)
    until((tmp_path / "deaf").exists)
    children = family(held.pid, 1)
    assert held.stdin is not None
    held.stdin.close()
    held.wait(timeout=guard.GRACE + 10)
    assert gone(children)


def test_the_death_of_its_holder_ends_all_of_them() -> None:
    holder = (
        "import subprocess, sys, time\n"
        f"command = {[*COMMAND, 'bash', '-c', FAMILY]!r}\n"
        "held = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)\n"
        "print(held.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = family(int(parent.stdout.readline()), 3)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: gone(children))


def test_a_server_that_ends_takes_its_children_along(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        held = subprocess.Popen(
            [*COMMAND, "bash", "-c", "sleep 300 & exit 7"], stdin=subprocess.PIPE, stdout=log, start_new_session=True
        )
        held.wait(timeout=20)
    assert "ended with code 7" in (tmp_path / "log").read_text()
    until(lambda: not [p for p in psutil.process_iter(["pid"]) if _group(p.pid) == held.pid])


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None
