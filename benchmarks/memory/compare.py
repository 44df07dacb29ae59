"""Errors, their summaries and the metrics of a result.

Error      predicted / measured - 1. A measurement that is only known to lie between two ends has the error to the
           nearer end, and 0 between them.
Quantile   linear between closest ranks (numpy's default; `statistics.quantiles(method="inclusive")`).
Under      the most negative error: the prediction that would have run out of memory by most. 0 where none is negative.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

STATISTICS = ("allocated", "reserved", "device")
GRADES = ("A", "B")
CAP = "the cap is read as the length"
Rows = Sequence[Mapping[str, Any]]


def error_of(predicted: float, low: float, high: float) -> float:
    """Of a prediction against a measurement between `low` and `high` (equal where it is exact)."""
    if predicted < low:
        return predicted / low - 1
    return predicted / high - 1 if predicted > high else 0.0


def quantile(values: Iterable[float], share: float) -> float:
    """The `share` quantile, 0 to 1. Raises ValueError of no values."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("a quantile of nothing")
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def summary(errors: Sequence[float]) -> dict[str, float]:
    """rows, median and 95th percentile of the absolute error, worst under, worst over. Raises ValueError of none."""
    sizes = [abs(error) for error in errors]
    return {
        "rows": len(errors),
        "median": quantile(sizes, 0.5),
        "p95": quantile(sizes, 0.95),
        "under": min(0.0, *errors) if errors else 0.0,
        "over": max(0.0, *errors) if errors else 0.0,
    }


def grouped(rows: Rows, key: Callable[[Mapping[str, Any]], str], error: str = "error") -> dict[str, dict[str, float]]:
    """Summaries by key, in the order of the keys; rows without that error are left out."""
    errors: dict[str, list[float]] = {}
    for row in rows:
        if row[error] is not None:
            errors.setdefault(key(row), []).append(row[error])
    return {name: summary(errors[name]) for name in sorted(errors)}


def variants(rows: Rows) -> list[tuple[str, str, Rows, str]]:
    """(words, suffix of a metric's name, rows, error): own, contract only, own without lengths that are caps."""
    stated = [row for row in rows if CAP not in row["note"]]
    return [
        ("own", "", rows, "error"),
        ("contract only", "_contract_only", rows, "error_contract_only"),
        ("own, stated length", "_stated_length", stated, "error"),
    ]


def metrics(rows: Rows) -> dict[str, float]:
    """Flat names: `median_abs_error_allocated_a` and so on; `rows_a` counts the allocated ones. All are shares of 1."""
    found: dict[str, float] = {}
    for _, suffix, chosen, error in variants(rows):
        for grade in GRADES:
            for statistic in STATISTICS:
                if not (errors := errors_of(chosen, grade, statistic, error)):
                    continue
                of = summary(errors)
                end = f"{statistic}_{grade.lower()}{suffix}"
                found |= {
                    f"median_abs_error_{end}": of["median"],
                    f"p95_abs_error_{end}": of["p95"],
                    f"worst_under_{end}": of["under"],
                    f"rows_{end}": of["rows"],
                }
                if statistic == "allocated":
                    found[f"rows_{grade.lower()}{suffix}"] = of["rows"]
    return found


def errors_of(rows: Rows, grade: str, statistic: str, error: str) -> list[float]:
    """The errors of one grade and statistic that are known."""
    chosen = [row for row in rows if (row["grade"], row["statistic"]) == (grade, statistic)]
    return [row[error] for row in chosen if row[error] is not None]
