"""A run while it happens: its events folded into what a person looks at, each new finding told once, and how long it
will still take.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean, quantiles
from typing import TypeVar

from rankwise.records import (
    Event,
    Failed,
    Finding,
    Finished,
    Interval,
    Plan,
    Saved,
    SpectrumSeen,
    Started,
    Step,
    Stopped,
    Validation,
    Watched,
)
from rankwise.records.event import BaseEvent
from rankwise.store import replay
from rankwise.watch.findings import find
from rankwise.watch.raised import steps_of

EVERY_STEP = 200  # steps, up to which findings are looked for after each; then after a fiftieth of the steps so far
FRACTION = 50
RECENT = 20  # steps whose mean is the speed now
SPREAD = 100  # steps whose fastest and slowest tenth are the interval
FEWEST = 5  # steps, before which the plan's word stands
SAMPLES = 300  # of memory

AnyEvent = TypeVar("AnyEvent", bound=BaseEvent)


class LiveRun:
    """What is known of a run so far. `see` takes its events one by one.

    Attributes:
        plan: None for a run made by others.
        events: as `Run.events()` would give them: steps that a resume took again stand once.
        findings: told so far, the newest last.
        memory: resident bytes of the training process, the newest last, as whoever watches it has sampled them.
    """

    def __init__(self, plan: Plan | None):
        self.plan = plan
        self.events: list[Event] = []
        self.findings: list[Finding] = []
        self.memory: deque[int] = deque(maxlen=SAMPLES)
        self._told: set[tuple[str, str]] = set()

    def see(self, event: Event) -> list[Finding]:
        """Take one event; returns the findings that it raises for the first time at their level."""
        self.events.append(event)
        if isinstance(event, Started):
            self.events = replay(self.events)
        if isinstance(event, Step) and not _looked_at(event.step):
            return []
        new = [f for f in find(self.plan, self.events) if (f.name, f.level) not in self._told]
        self._told |= {(f.name, f.level) for f in new}
        self.findings += new
        return new

    def all(self, kind: type[AnyEvent]) -> list[AnyEvent]:
        """Events of one kind, in order."""
        return [e for e in tuple(self.events) if isinstance(e, kind)]

    def last(self, kind: type[AnyEvent]) -> AnyEvent | None:
        return next((e for e in reversed(tuple(self.events)) if isinstance(e, kind)), None)

    @property
    def max_steps(self) -> int | None:
        started = self.last(Started)
        config = self.plan.verdict.config if self.plan else None
        return started.max_steps if started else config.max_steps if config else None

    @property
    def ended(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Finished | Stopped | Failed)


def _looked_at(step: int) -> bool:
    """A finding costs time that grows with the run, so that later steps are not each looked at."""
    return step <= EVERY_STEP or step % (step // FRACTION) == 0


@dataclass(frozen=True)
class Left:
    """Seconds until the last step is taken, with what is measured and saved on the way."""

    seconds: float
    interval: Interval
    source: str


def time_left(run: LiveRun, now: datetime | None = None) -> Left | None:
    """From the mean of the last RECENT steps, and the fastest and slowest tenth of the last SPREAD; by the plan alone
    before there are FEWEST. None where neither is known.

    Args:
        now: the clock, against the time of the last event; None: as of that event.
    """
    left = _time_left(run)
    if left is None or now is None or not run.events:
        return left
    waited = max(0.0, (now - datetime.fromisoformat(run.events[-1].time)).total_seconds())
    low, high = left.interval
    return Left(max(0.0, left.seconds - waited), (max(0.0, low - waited), max(0.0, high - waited)), left.source)


def _time_left(run: LiveRun) -> Left | None:
    total, steps = run.max_steps, steps_of(tuple(run.events))
    if total is None:
        return None
    done = steps[-1].step if steps else 0
    told = _step_seconds(run.plan, [s.seconds for s in steps[1:]])
    if told is None:
        return None
    (mean, (low, high)), source = told
    left, beside = max(0, total - done), _beside(run, done, total)
    return Left(left * mean + beside, (left * low + beside, left * high + beside), source)


def _step_seconds(plan: Plan | None, seconds: Sequence[float]) -> tuple[tuple[float, Interval], str] | None:
    if len(seconds) >= FEWEST:
        mean, tenths = fmean(seconds[-RECENT:]), quantiles(seconds[-SPREAD:], n=10, method="inclusive")
        return (mean, (min(mean, tenths[0]), max(mean, tenths[-1]))), "measured"
    estimate = plan.chosen() if plan else None
    if estimate is None or estimate.time.step_seconds is None or estimate.time.relative is None:
        return None
    step, (low, high) = estimate.time.step_seconds, estimate.time.relative
    return (step, (low * step, high * step)), "planned"


def _beside(run: LiveRun, done: int, total: int) -> float:
    """Seconds of what happens between steps: validations and checkpoints that are still to come at their mean so far,
    watches as often as until now.
    """
    config = run.plan.verdict.config if run.plan else None
    seconds = 0.0
    if config is not None:
        validating, saving = [e.seconds for e in run.all(Validation)], [e.seconds for e in run.all(Saved)]
        for took, every in ((validating, config.eval_steps), (saving, config.save_steps)):
            seconds += _times(done, total, every) * fmean(took) if took else 0.0
    looking = sum(e.seconds for kind in (run.all(Watched), run.all(SpectrumSeen)) for e in kind if e.step > 0)
    return seconds + (looking / done * (total - done) if done else 0.0)


def _times(done: int, total: int, every: int) -> int:
    """How often something is still due that is done every so many steps, and after the last one."""
    return total // every - done // every + (total % every > 0 and done < total)
