"""A run looked at again and again, whoever trains it: each look reads only what was written since the last one."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import psutil

from rankwise.api.following import events_from
from rankwise.records import Event, Finding, Interval, Plan, Started, Step
from rankwise.store import Run, replay
from rankwise.watch.findings import find
from rankwise.watch.live import FRACTION, Left, LiveRun, time_left
from rankwise.watch.resources import peak_memory, planned_speed, speed


@dataclass(frozen=True)
class Look:
    """A run as it is now.

    Attributes:
        state: as `Run.state()`.
        events: as `Run.events()`.
        findings: of the evidence where there is one, else those that hold so far.
        step, max_steps: the last step taken; None: not known.
        left: seconds until the last step; None: it does not run, or that is not known.
        memory: resident bytes of the training process now; None: it does not run, or its system does not tell.
        peak_memory: the highest peak that the run has told of, in bytes.
        speed, planned_speed: tokens per second, the latter with its interval.
        stopping: somebody has asked for a stop, and the step at work is not done yet.
    """

    state: str
    events: list[Event]
    findings: list[Finding]
    step: int | None
    max_steps: int | None
    left: Left | None
    memory: int | None
    peak_memory: int | None
    speed: float | None
    planned_speed: tuple[float, Interval] | None
    stopping: bool


class Monitor:
    """`look` as often as one likes. What is damaged raises RunError."""

    def __init__(self, run: Run, clock: Callable[[], datetime] = lambda: datetime.now(UTC)):
        self.run, self.plan, self._clock = run, run.plan(), clock
        self._raw: list[Event] = []
        self._at = 0
        self._found: tuple[int, list[Finding]] | None = None  # events that were looked at, and what they raised

    def look(self) -> Look:
        writer = self.run.writer()  # asked before reading: what is written after it is read next time
        new, self._at = events_from(self.run, self._at)
        self._raw += new
        events = replay(self._raw)
        state = self.run.state(self._raw)
        running = state == "running"
        live = _live(self.plan, events)
        return Look(
            state=state,
            events=events,
            findings=self._findings(events, new),
            step=max((e.step for e in events if isinstance(e, Step | Started)), default=None),
            max_steps=live.max_steps,
            left=time_left(live, self._clock()) if running and not live.ended else None,
            memory=_resident(writer) if running else None,
            peak_memory=peak_memory(events),
            speed=speed([e for e in events if isinstance(e, Step)]),
            planned_speed=planned_speed(self.plan),
            stopping=running and self.run.stop_path.exists(),
        )

    def _findings(self, events: list[Event], new: list[Event]) -> list[Finding]:
        """Looking for them takes time that grows with the run: after more than steps, or a fiftieth more of them."""
        if self.run.evidence_path.is_file():
            return list(self.run.evidence().findings)
        seen = self._found[0] if self._found else 0
        if self._found is None or len(self._raw) * FRACTION > seen * (FRACTION + 1) or _more_than_steps(new):
            self._found = len(self._raw), find(self.plan, events)
        return self._found[1]


def _more_than_steps(events: list[Event]) -> bool:
    return any(not isinstance(event, Step) for event in events)


def _live(plan: Plan, events: list[Event]) -> LiveRun:
    """All at once: `LiveRun.see` would look for findings at each step again."""
    live = LiveRun(plan)
    live.events = events
    return live


def _resident(process: int | None) -> int | None:
    if process is None:
        return None
    with suppress(psutil.Error):  # it has just ended
        return int(psutil.Process(process).memory_info().rss)
    return None


def stop(run: Run) -> None:
    """Ask a run that trains to save and stop, as Ctrl-C does; it can be resumed. Raises RunError where it does not run.

    No process is sent a signal: a file is put into the folder, for which the loop of the one that holds it looks.
    """
    run.ask_to_stop()
