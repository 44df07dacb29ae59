"""Scores of benchmarks as text: one row a task or group, the tasks inside a group left to evidence.json."""

from dataclasses import dataclass

from rankwise.records import BenchmarkFailure, BenchmarkResult, Benchmarks, BenchmarkScore, Interval
from rankwise.report.quantities import UNKNOWN, bounds, count, duration, plain, points, share


@dataclass(frozen=True)
class BenchmarkRow:
    """One line of the table; an empty text where there is nothing to compare with."""

    task: str
    metric: str
    shots: str
    items: str
    base: str
    base_error: str
    tuned: str
    tuned_error: str
    difference: str
    bounds: str
    answer: str
    source: str


def benchmark_rows(found: Benchmarks) -> list[BenchmarkRow]:
    """Groups, and tasks that stand for themselves."""
    inside = {task for result in found.results for task in result.tuned.subtasks}
    return [_row(result) for result in found.results if result.tuned.task not in inside]


def benchmark_line(row: BenchmarkRow) -> str:
    """arc_easy acc: 49 % -> 51 %, +2 points (95 %: -1 to +5), 100 items: cannot tell."""
    if not row.base:
        error = f" ({row.tuned_error})" if row.tuned_error else ""
        return f"{row.task} {row.metric}: {row.tuned}{error}, {row.items} items"
    return (
        f"{row.task} {row.metric}: {row.base} -> {row.tuned}, {row.difference} (95 %: {row.bounds}), "
        f"{row.items} items: {row.answer}"
    )


def benchmark_source(found: Benchmarks) -> str:
    """Which versions, how many tasks inside groups, and how long it took."""
    versions = sorted({result.tuned.harness for result in found.results})
    inside = {task for result in found.results for task in result.tuned.subtasks}
    more = f" Tasks inside groups: {count(len(inside))}, in evidence.json." if inside else ""
    return f"lm-evaluation-harness {', '.join(versions)}; the last call took {duration(found.seconds)}.{more}"


def failure_line(failed: BenchmarkFailure) -> str:
    """What happened and what to do, in one line."""
    return f"{failed.what}; fix: {failed.fix}"


def _row(result: BenchmarkResult) -> BenchmarkRow:
    tuned, base = result.tuned, result.base
    unit = tuned.unit if base is None or base.unit == tuned.unit else "score"
    kept = "" if tuned.filter == "none" else f", {tuned.filter}"
    return BenchmarkRow(
        task=tuned.task,
        metric=f"{tuned.metric}{kept}",
        shots=UNKNOWN if tuned.num_fewshot is None else count(tuned.num_fewshot),
        items=count(tuned.items),
        base=_value(base.value, unit) if base else "",
        base_error=_error(base, unit) if base else "",
        tuned=_value(tuned.value, unit),
        tuned_error=_error(tuned, unit),
        difference=_difference(result.difference, unit),
        bounds=_bounds(result.interval, unit) if base else "",
        answer=result.answer or "",
        source=result.source,
    )


def _value(value: float, unit: str) -> str:
    return share(value) if unit == "share" else plain(value)


def _error(score: BenchmarkScore, unit: str) -> str:
    if score.stderr is None:
        return ""
    return f"± {score.stderr * 100:.1f} points" if unit == "share" else f"± {plain(score.stderr)}"


def _difference(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return points(value) if unit == "share" else _signed(value)


def _bounds(interval: Interval | None, unit: str) -> str:
    if interval is None:
        return UNKNOWN
    return bounds(interval, unit, signed=True) if unit == "share" else " to ".join(map(_signed, interval))


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else '-' if value < 0 else ''}{plain(abs(value))}"
