"""Quality against what it takes, as one Plotly figure for each metric and kind of cost, with the front of the arms.

Colours are names of CSS variables, which the page resolves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rankwise.records import Bakeoff, Interval, Outcome, Trial
from rankwise.report.compare_looks import Look, looks
from rankwise.report.compared import Metric, finals, run_actuals
from rankwise.report.cost_axis import ZERO_GAP, cost_axis, short
from rankwise.report.figure import AXIS, SMALL, layout
from rankwise.report.glossary import metric_name
from rankwise.report.quantities import bounds, common_scale, duration, flops, measured, size

UNITS = {"flops": "FLOP", "train_seconds": "s", "peak_memory": "B", "stored_bytes": "B"}
COSTS = {  # quantity of run_actuals -> the axis
    "flops": "training of one run",
    "train_seconds": "training of one run",
    "peak_memory": "peak memory of the process",
    "stored_bytes": "stored for one model",
}
WRITTEN = {"flops": flops, "train_seconds": duration, "peak_memory": size, "stored_bytes": size}


@dataclass(frozen=True)
class Point:
    """An arm in one picture: what it takes and what it reached."""

    look: Look
    cost: float
    value: float
    interval: Interval


def pareto_figures(
    bakeoff: Bakeoff, trials: Sequence[Trial], outcome: Outcome, metric: Metric, number: int
) -> dict[str, dict[str, Any]]:
    """One picture for each kind of cost, by the id that the page names it with; none where fewer than two arms have
    both numbers.
    """
    figures = {}
    for quantity in COSTS:
        points = pareto_points(bakeoff, trials, outcome, metric, quantity)
        if len(points) > 1:
            figures[f"pareto-{number}-{quantity.replace('_', '-')}"] = _pareto(points, metric, quantity)
    return figures


def pareto_points(
    bakeoff: Bakeoff, trials: Sequence[Trial], outcome: Outcome, metric: Metric, quantity: str
) -> tuple[Point, ...]:
    """The arms whose cost and whose quality are known."""
    found, ran, own = [], finals(trials), looks(bakeoff)
    reached = {r.arm: r for r in outcome.results if metric.name in r.means}
    for allowance in bakeoff.allowances:
        name = allowance.arm.name
        taken = {a.quantity: a.actual for a in run_actuals(bakeoff, allowance, ran.get(name, ()))}
        cost = taken[quantity]
        if name in reached and cost is not None:
            value = reached[name].means[metric.name]
            found.append(Point(own[name], cost, value, reached[name].intervals.get(metric.name, (value, value))))
    return tuple(found)


def front(points: Sequence[Point], higher_is_better: bool) -> tuple[Point, ...]:
    """The points that no cheaper one equals in quality, cheapest first."""
    sign = 1 if higher_is_better else -1
    best, kept = -math.inf, []
    for point in sorted(points, key=lambda p: (p.cost, -sign * p.value)):
        if sign * point.value > best:
            best = sign * point.value
            kept.append(point)
    return tuple(kept)


def _pareto(points: Sequence[Point], metric: Metric, quantity: str) -> dict[str, Any]:
    unit, factor = common_scale([p.cost for p in points], UNITS[quantity])
    across = cost_axis([p.cost / factor for p in points])
    kept = front(points, metric.higher_is_better)
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [across.at(p.cost / factor) for p in kept],
        "y": [_scaled(p.value, metric.unit) for p in kept],
        "line": {"color": "var(--muted)", "width": 1.5, "dash": "dash", "shape": "hv"},
        "marker": {"color": "var(--muted)", "size": 18, "symbol": "circle-open", "line": {"width": 1}},
        "hoverinfo": "skip",
    }
    drawn = layout(300, f"{COSTS[quantity]} ({unit})") | {"hovermode": "closest", "showlegend": False}
    drawn["xaxis"] |= across.axis | {"rangemode": "normal"}
    drawn["yaxis"] = AXIS | {"title": {"text": _quality_title(metric)} | SMALL, "range": _heights(points, metric)}
    drawn["margin"] = {"l": 62, "r": 14, "t": 10, "b": 44}
    if across.zero is not None:
        drawn["shapes"] = [_break(across.zero + ZERO_GAP / 2)]
    marks = [_mark(p, across.at(p.cost / factor), metric, quantity) for p in points]
    return {"data": [line, *marks], "layout": drawn}


def _break(at: float) -> dict[str, Any]:
    """Between 0 and the smallest value of a logarithmic axis, where it is no axis."""
    line = {"color": "var(--line)", "width": 2, "dash": "dot"}
    return {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": short(at), "x1": short(at), "line": line}


def _mark(point: Point, x: float, metric: Metric, quantity: str) -> dict[str, Any]:
    y = _scaled(point.value, metric.unit)
    low, high = (_scaled(end, metric.unit) for end in point.interval)
    told = f"{measured(point.value, metric.unit)} (95 %: {bounds(point.interval, metric.unit)})"
    name, cost = escape(point.look.arm), WRITTEN[quantity](point.cost)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [x],
        "y": [y],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [short(max(0.0, high - y))],
            "arrayminus": [short(max(0.0, y - low))],
            "color": point.look.color,
            "thickness": 1.5,
            "width": 4,
        },
        "marker": {
            "color": point.look.color,
            "size": 11,
            "symbol": point.look.symbol,
            "line": {"width": 2, "color": point.look.color},
        },
        "customdata": [f"<b>{name}</b><br>{escape(metric_name(metric.name))} {told}<br>{cost}"],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _quality_title(metric: Metric) -> str:
    unit = "%" if metric.unit == "share" else metric.unit
    return f"{escape(metric_name(metric.name))} ({escape(unit)})"


def _heights(points: Sequence[Point], metric: Metric) -> list[float]:
    """Better is up, whatever the metric."""
    ends = [_scaled(end, metric.unit) for p in points for end in (*p.interval, p.value)]
    pad = 0.07 * (max(ends) - min(ends)) or 0.07 * abs(max(ends)) or 1.0
    found = [short(min(ends) - pad), short(max(ends) + pad)]
    return found if metric.higher_is_better else found[::-1]


def _scaled(value: float, unit: str) -> float:
    return short(100 * value if unit == "share" else value)
