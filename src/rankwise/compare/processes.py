"""Each arm in a process of its own: one after the other on one device, side by side where there are several.

A process ends with the one that started it: it holds the other end of its standard input.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from rankwise.compare.folder import Folder
from rankwise.compare.measured import Told
from rankwise.errors import Interrupted, RankwiseError, TrainingError, UsageError

POLL_SECONDS = 0.1
GRACE_SECONDS = 20.0  # for a checkpoint, when it is asked to stop
IDLE_GRACE_SECONDS = 1.0  # where it has nothing to save: while it answers, or before its first step

KINDS: dict[str, type[RankwiseError]] = {"Interrupted": Interrupted, "UsageError": UsageError, "JobError": UsageError}


class Process(Protocol):
    """One arm at work somewhere."""

    def code(self) -> int | None:
        """Its exit code; None: it runs."""
        ...

    def ask_to_stop(self) -> None:
        """It saves what it has and ends."""
        ...

    def kill(self) -> None: ...


Start = Callable[[str, int], Process]  # (arm, number of the device)


class Local:
    """An arm's process on this machine.

    Args:
        gpu: the only one that it sees, as CUDA_VISIBLE_DEVICES has it; None: as this process.
        flags: more arguments of the worker.
    """

    def __init__(self, folder: Folder, arm: str, gpu: str | None = None, flags: Sequence[str] = ()):
        environment = os.environ | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu is not None else {})
        with folder.log_path(arm).open("a") as log:
            self.process = subprocess.Popen(
                command(folder, arm, flags),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
            )

    def code(self) -> int | None:
        return self.process.poll()

    def ask_to_stop(self) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # it has ended
            os.write(self.process.stdin.fileno(), b"stop")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()


def command(folder: Folder, arm: str, flags: Sequence[str] = ()) -> list[str]:
    """What works on an arm."""
    return [sys.executable, "-m", "rankwise.worker.comparing", str(folder.path), arm, "--held", *flags]


def work_on(folder: Folder, arms: Sequence[str], devices: int, start: Start) -> Iterator[tuple[str, Told]]:
    """Start the arms in their order as devices are free, and yield (arm, what it tells).

    Raises:
        RankwiseError: what an arm failed at; the others are asked to stop.
    """
    waiting, running = list(arms), dict[int, _Running]()
    try:
        while waiting or running:
            for number in range(devices):
                if waiting and number not in running:
                    arm = waiting.pop(0)
                    running[number] = _Running(folder, arm, start, number)
            for number, one in list(running.items()):
                code = one.process.code()  # before its last lines are read
                for told in one.lines():
                    if told.failed is not None:
                        raise error_of(told.failed)
                    yield one.arm, told
                if code is not None:
                    del running[number]
                    one.process.kill()
                    if code != 0:
                        raise _died(folder, one.arm, code)
            time.sleep(POLL_SECONDS)
    finally:
        _end(list(running.values()))


class _Running:
    """An arm's process, and how far its lines were read."""

    def __init__(self, folder: Folder, arm: str, start: Start, number: int):
        self.arm, self.path = arm, folder.told_path(arm)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self.read = 0
        self.trains = False  # is it between two steps of a run, of which a checkpoint is worth waiting for?
        self.process = start(arm, number)

    def lines(self) -> Iterator[Told]:
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(self.read)
            whole, _, _ = file.read().rpartition(b"\n")
        self.read += len(whole) + (1 if whole else 0)
        for line in whole.splitlines():
            told = Told.model_validate_json(line)
            self.trains = told.trains
            yield told


def _end(running: Sequence[_Running]) -> None:
    """Ask, wait, and end those that did not listen."""
    for one in running:
        one.process.ask_to_stop()
    last = time.monotonic() + (GRACE_SECONDS if any(one.trains for one in running) else IDLE_GRACE_SECONDS)
    while time.monotonic() < last and any(one.process.code() is None for one in running):
        time.sleep(POLL_SECONDS)
    for one in running:
        one.process.kill()


def error_of(said: dict[str, str | int]) -> RankwiseError:
    """What an arm's process raised, as an error of its kind."""
    kind = KINDS.get(str(said["kind"]), TrainingError)
    return kind(str(said["what"]), expected=str(said["expected"]), fix=str(said["fix"]))


def _died(folder: Folder, arm: str, code: int) -> RankwiseError:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    log = folder.log_path(arm)
    tail = log.read_text(errors="replace").strip().splitlines()[-1:] if log.is_file() else []
    return TrainingError(
        f"the process of {arm} {how}" + (f": {tail[0]}" if tail else ""),
        fix=f"see {log}; the same call with --out {folder.path} goes on from there",
    )
