"""What the app shows of a run while it trains: numbers with what was planned of them, memory against the device, the
newest events. Of a run that has ended the same, as it ended.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rankwise.records import Event, Evidence, Finding, Interval, Plan, Step, Validation
from rankwise.report import charts, words
from rankwise.report.glossary import TERMS as ALL_TERMS
from rankwise.report.rows import SEVERITY, Figure
from rankwise.report.watch_rows import WatchView, watch_figures, watch_view

NEWEST = 8  # events that are told
SAID = frozenset(
    {"note", "validation", "watched", "acted", "spectrum", "saved", "rehearsed", "stopped", "failed", "finished"}
)
SPECTRAL = (
    ("Update", "What training added to a weight matrix: for LoRA the product of its two thin matrices."),
    ("Effective rank", "In how many directions an update really goes; at most the rank r."),
    ("Intruder", "A strong direction of a tuned weight that lies far from all of the base's; many go with forgetting."),
)
WANTED = ("LoRA", "Nats", "Validation loss", "Learning rate", "Token", "95 % interval", "Forgetting")
TERMS = (
    *((term, meaning) for term, meaning in ALL_TERMS if term in WANTED),
    *SPECTRAL,
    ("Resident memory", "What the training process holds in the machine's memory right now."),
    ("Checkpoint", "The state of a run on disk, from which it can go on."),
)
LIST_TERMS = (
    *((term, meaning) for term, meaning in ALL_TERMS if term in ("LoRA", "Nats", "Validation loss", "Proof")),
    ("Planned", "There is a plan and nothing has begun."),
    ("Stopped, killed", "Ended on request with a checkpoint, or without a word; both can be resumed."),
)


class Left(Protocol):
    """Seconds until the last step is taken."""

    @property
    def seconds(self) -> float: ...
    @property
    def interval(self) -> Interval: ...
    @property
    def source(self) -> str: ...


class Look(Protocol):
    """What is known of a run now, as `api.Monitor` sees it."""

    @property
    def state(self) -> str: ...
    @property
    def events(self) -> list[Event]: ...
    @property
    def findings(self) -> list[Finding]: ...
    @property
    def step(self) -> int | None: ...
    @property
    def max_steps(self) -> int | None: ...
    @property
    def left(self) -> Left | None: ...
    @property
    def memory(self) -> int | None: ...
    @property
    def peak_memory(self) -> int | None: ...
    @property
    def speed(self) -> float | None: ...
    @property
    def planned_speed(self) -> tuple[float, Interval] | None: ...
    @property
    def stopping(self) -> bool: ...


@dataclass(frozen=True)
class LiveView:
    """
    Attributes:
        sentence: where the run stands.
        next_step: the command that comes next; empty of a run that trains.
        resume: the command that goes on with a run that was stopped.
        share: of the steps that are taken; None: not known.
        memory: the interval that was planned and what was used, on the scale of the device; None without a plan of it.
        memory_sentence: the same in words.
        capacity_at: the device's memory on that scale, in percent.
        newest: events in words, the newest first.
        watch: the last look at general ability and at spectra.
    """

    sentence: str
    next_step: str
    resume: str
    share: float | None
    figures: tuple[Figure, ...]
    findings: tuple[Finding, ...]
    memory: charts.Track | None
    memory_sentence: str
    capacity_at: float | None
    newest: tuple[str, ...]
    watch: WatchView


def live_view(plan: Plan, look: Look, folder: Path) -> LiveView:
    estimate, used = plan.chosen(), _used(look)
    known = estimate is not None and estimate.memory.capacity is not None
    sentence, next_step = standing(look, folder)
    return LiveView(
        sentence=sentence,
        next_step=next_step,
        resume=f"`rankwise train {shlex.quote(str(folder))} --resume` goes on from there.",
        share=None if look.step is None or not look.max_steps else min(1.0, look.step / look.max_steps),
        figures=_figures(plan, look),
        findings=tuple(sorted(look.findings, key=lambda f: SEVERITY.index(f.level))),
        memory=charts.used_track(estimate, used) if estimate and known else None,
        memory_sentence=_memory_sentence(plan, look),
        capacity_at=charts.used_capacity(estimate, used) if estimate and known else None,
        newest=tuple(words.event_line(e, look.max_steps or 0) for e in reversed(look.events) if e.event in SAID)[
            :NEWEST
        ],
        watch=watch_view(look.events),
    )


def standing(look: Look, folder: Path) -> tuple[str, str]:
    """(Running: step 5 of 20, 2 min left (1 to 4 min, measured). What comes next, of a run that does not train.)"""
    if look.state != "running":
        sentence, _, then = words.state_sentence(look.state, look.step, look.max_steps, folder).partition(". ")
        return f"{sentence}.", then
    if look.step is None:
        return "Starting: the model and the data are being loaded.", ""
    at = f"step {words.count(look.step)} of {words.count(look.max_steps)}"
    if look.stopping:
        return f"Stopping: {at}. It ends after the step at work, with a checkpoint.", ""
    left = f", {words.left_sentence(look.left.seconds, look.left.interval, look.left.source)}" if look.left else ""
    return f"Running: {at}{left}.", ""


def short_model(name: str) -> str:
    """The last part of a path; ids of the hub and our own names stay whole."""
    return Path(name).name if name.startswith(("/", ".", "~")) else name


def live_figures(events: Sequence[Event], evidence: Evidence | None) -> dict[str, dict[str, Any]]:
    """Plotly figures by the id that the page names them with, the reports' own."""
    curves = charts.training_curves(events)
    return ({"curves-data": curves} if curves else {}) | watch_figures(events, evidence)


def _used(look: Look) -> int | None:
    return max((m for m in (look.memory, look.peak_memory) if m is not None), default=None)


def _figures(plan: Plan, look: Look) -> tuple[Figure, ...]:
    steps = [e for e in look.events if isinstance(e, Step)]
    checks = [e for e in look.events if isinstance(e, Validation)]
    loss = words.nats(steps[-1].loss) if steps else words.UNKNOWN
    first = f"per token, this step; the first was {words.nats(steps[0].loss)}" if steps else "no step was taken yet"
    held = words.nats(checks[-1].loss) if checks else words.UNKNOWN
    return (
        _time_figure(look, steps),
        Figure("Training loss", loss, first),
        Figure("Validation loss", held, _validation_source(plan, checks)),
        _speed_figure(look),
        _memory_figure(plan, look),
        Figure("Method", words.method_name(plan.verdict.method), f"model {short_model(plan.job.model)}"),
    )


def _time_figure(look: Look, steps: Sequence[Step]) -> Figure:
    if look.left is not None:
        told = "by the last steps" if look.left.source == "measured" else "by the plan, until 5 steps are taken"
        span = words.duration_range(look.left.interval)
        return Figure("Time left", words.duration(look.left.seconds), f"{span}, {told}")
    seconds = sum(s.seconds for s in steps) if steps else None
    return Figure("Time in steps", words.duration(seconds), "by the clock, steps alone")


def _validation_source(plan: Plan, checks: Sequence[Validation]) -> str:
    if not checks:
        every = plan.verdict.config.eval_steps if plan.verdict.config else None
        return f"measured every {words.count(every)} steps" if every else "not measured"
    base = f"; base {words.nats(checks[0].loss)}" if checks[0].step == 0 else ""
    return f"per token on held-out rows, step {words.count(checks[-1].step)}{base}"


def _speed_figure(look: Look) -> Figure:
    if look.planned_speed is None:
        return Figure("Speed", words.rate(look.speed), "over all steps but the first; not predicted")
    planned, (low, high) = look.planned_speed
    said = f"planned {words.plain(planned)} ({words.plain(low)} to {words.plain(high)})"
    return Figure("Speed", words.rate(look.speed), f"over all steps but the first; {said}")


def _memory_figure(plan: Plan, look: Look) -> Figure:
    now = look.memory if look.memory is not None else look.peak_memory
    what = "resident now" if look.memory is not None else "highest peak of the process"
    estimate = plan.chosen()
    if estimate is None:
        return Figure("Memory", words.size(now), what)
    span = words.size_range(estimate.memory.interval)
    return Figure("Memory", words.size(now), f"{what}; planned {words.size(estimate.memory.peak_device)} ({span})")


def _memory_sentence(plan: Plan, look: Look) -> str:
    """In words what the bar shows."""
    estimate = plan.chosen()
    if estimate is None:
        return "The plan says nothing of memory."
    memory = estimate.memory
    said = f"Planned {words.size(memory.peak_device)} ({words.size_range(memory.interval)})"
    used = _used(look)
    if used is None:
        return f"{said}; the run has not told of its memory yet."
    low, high = memory.interval
    judged = "inside the interval" if low <= used <= high else "ABOVE the interval" if used > high else "below it"
    return f"{said}; the most that was seen is {words.size(used)}: {judged}."
