"""A comparison as lines and tables on a terminal: what is planned, how far it is, what came of it."""

from collections.abc import Sequence
from typing import Protocol

from rankwise.records import Allowance, ArmResult, Bakeoff, Detectable, Outcome
from rankwise.report.quantities import bounds, duration, duration_range, learning_rate, measured, size

PLAN_HEADS = (
    "arm",
    "steps a run",
    "learning rates",
    "steps to choose",
    "FLOPs",
    "training",
    "answers",
    "all of it",
    "peak memory",
    "stored",
)
UNITS = {"flops": "FLOPs", "minutes": "minutes", "usd": "USD"}


class Progress(Protocol):
    """How far a comparison is."""

    @property
    def what(self) -> str: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def seconds_left(self) -> float | None: ...


def budget_line(bakeoff: Bakeoff) -> str:
    """The budget and what it is for."""
    seeds = ", ".join(map(str, bakeoff.seeds))
    return (
        f"{len(bakeoff.allowances)} arms for {bakeoff.budget:g} {UNITS[bakeoff.unit]} in all: choosing learning rates, "
        f"a run for each seed ({seeds}), and all answers"
    )


def plan_rows(bakeoff: Bakeoff) -> list[tuple[str, ...]]:
    """A row for each arm, as PLAN_HEADS has it."""
    return [_plan_row(allowance, len(bakeoff.seeds)) for allowance in bakeoff.allowances]


def _plan_row(a: Allowance, seeds: int) -> tuple[str, ...]:
    if a.arm.kind != "trained":
        return (
            a.arm.name,
            "-",
            "-",
            "-",
            "-",
            "-",
            duration(a.evaluation_seconds),
            duration_range(a.interval),
            "-",
            "-",
        )
    steps = f"{seeds} x {a.steps}" + (f" (+1 in {a.odd_steps})" if a.odd_steps else "")
    swept = f"{len(a.learning_rates)} x {a.sweep_steps}" if a.sweep_steps else "-"
    return (
        a.arm.name,
        steps,
        ", ".join(learning_rate(rate) for rate in a.learning_rates),
        swept,
        f"{a.flops:.3g}",
        duration(a.training_seconds),
        duration(a.evaluation_seconds),
        duration_range(a.interval),
        size(a.peak_memory),
        size(a.stored_bytes),
    )


def detectable_line(found: Detectable) -> str:
    """The smallest difference of one metric that can be told."""
    difference = measured(found.difference, found.unit)
    return f"{found.metric}: a difference of {difference}, of {found.items} items ({found.source})"


def ahead_line(progress: Progress) -> str:
    """What is being done, and how long it will still take."""
    part = f": {progress.done} of {progress.total}" if progress.total else ""
    left = f", about {duration(progress.seconds_left)} left" if progress.seconds_left is not None else ""
    return f"{progress.what}{part}{left}"


def result_table(outcome: Outcome) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    """(heads, a row for each arm): what it reached on each metric with its interval, and what it took."""
    units = {c.metric: c.unit for c in outcome.contrasts}
    metrics = list(dict.fromkeys(name for result in outcome.results for name in result.means))
    heads = ("arm", "learning rate", *metrics, "training", "peak memory", "stored")
    return heads, [_result_row(result, metrics, units) for result in outcome.results]


def _result_row(result: ArmResult, metrics: Sequence[str], units: dict[str, str]) -> tuple[str, ...]:
    edge = " (at the edge)" if result.at_the_edge else ""
    rate = "-" if result.learning_rate is None else learning_rate(result.learning_rate) + edge
    numbers = [_number(result, metric, units.get(metric, "")) for metric in metrics]
    return (
        result.arm,
        rate,
        *numbers,
        duration(result.seconds),
        size(result.peak_memory),
        size(result.stored_bytes),
    )


def _number(result: ArmResult, metric: str, unit: str) -> str:
    value = result.means.get(metric)
    if value is None:
        return "-"
    interval = result.intervals.get(metric)
    return measured(value, unit) + (f" [{bounds(interval, unit)}]" if interval else "")
