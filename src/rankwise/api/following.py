"""A run that goes on in another process: its events as they are written, and the memory of what this one started."""

import time
from collections.abc import Iterator

import psutil
from pydantic import ValidationError

from rankwise.errors import RunError
from rankwise.records import EVENT, Event
from rankwise.store import Run

POLL_SECONDS = 0.5


def follow(run: Run, *, poll_seconds: float = POLL_SECONDS) -> Iterator[Event]:
    """The events of a run from its first one on, each as soon as its line is whole, until nobody writes any more.

    A run that was resumed tells of some steps twice, with a `started` between them, as `events.jsonl` does.

    Raises:
        RunError: a line is no event of this version.
    """
    at = 0
    while True:
        writing = run.state() == "running"  # asked before reading: what is written after it is read next time
        lines = _whole_lines(run, at)
        for line in lines:
            yield _event(run, line)
        at += sum(map(len, lines))
        if not writing:
            return
        if not lines:
            time.sleep(poll_seconds)


def events_from(run: Run, at: int) -> tuple[list[Event], int]:
    """(events from byte `at` of the file on whose lines are whole, the byte after them). Raises RunError."""
    lines = _whole_lines(run, at)
    return [_event(run, line) for line in lines], at + sum(map(len, lines))


def _whole_lines(run: Run, at: int) -> list[bytes]:
    """Lines that end, from byte `at` on."""
    if not run.events_path.is_file():
        return []
    with run.events_path.open("rb") as file:
        file.seek(at)
        return [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]


def _event(run: Run, line: bytes) -> Event:
    try:
        return EVENT.validate_json(line)
    except ValidationError:
        raise RunError(f"{run.events_path}: not an event of this version: {line[:80]!r}") from None


def memory_below() -> int | None:
    """Resident bytes of the largest process that this one has started, directly or not; None where there is none."""
    sizes = []
    for process in psutil.Process().children(recursive=True):
        try:
            sizes.append(process.memory_info().rss)
        except psutil.Error:  # it has just ended
            continue
    return max(sizes, default=None)
