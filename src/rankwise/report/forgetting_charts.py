"""Pictures of what a run forgot: each slice of general ability over the steps, and the frontier of what was learned
against it.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

from rankwise.records import Event, Slice, Threshold, Validation, Watched
from rankwise.report.charts import thin
from rankwise.report.figure import AXIS, LOWER, SMALL, UPPER, layout
from rankwise.report.quantities import bounds, difference

LEVELS = {  # level -> colour and symbol
    "green": ("var(--good)", "circle"),
    "amber": ("var(--warning)", "diamond"),
    "red": ("var(--fault)", "x"),
    "unknown": ("var(--muted)", "circle-open"),
}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")  # of one slice after the other
TITLES = {"nats per token": "loss above the base (nats)", "share": "right (points)"}
POINTS = 300  # of one slice


def forgetting_figure(events: Sequence[Event], thresholds: Sequence[Threshold] = ()) -> dict[str, Any] | None:
    """Difference of each slice from the untouched base over the steps, with its interval; never an average. Losses
    above, shares below, since their units differ; the thresholds of a panel where its slices share them.
    """
    seen = [e for e in events if isinstance(e, Watched)]
    lines = {key: thin(points, POINTS) for key, points in _by_slice(seen).items()}
    if not lines:
        return None
    met = {line[0][1].unit for line in lines.values()}
    units = [unit for unit in TITLES if unit in met]
    data = [
        trace
        for number, line in enumerate(lines.values())
        for trace in _slice_traces(line, DASHES[number % len(DASHES)], units.index(line[0][1].unit))
    ]
    drawn = _forgetting_layout(units)
    drawn["shapes"] += [line for panel, unit in enumerate(units) for line in _limits(thresholds, unit, panel)]
    return {"data": data, "layout": drawn}


def _by_slice(seen: Sequence[Watched]) -> dict[tuple[str, str], list[tuple[int, Slice]]]:
    """(step, slice) of each set and metric, in the order in which they are first met."""
    found: dict[tuple[str, str], list[tuple[int, Slice]]] = {}
    for watched in seen:
        for part in watched.slices:
            found.setdefault((part.name, part.metric), []).append((watched.step, part))
    return found


def _scaled(value: float, unit: str) -> float:
    """Shares are drawn as points."""
    return float(f"{100 * value if unit == 'share' else value:.5g}")


def _slice_traces(line: Sequence[tuple[int, Slice]], dash: str, panel: int) -> list[dict[str, Any]]:
    """The band of its intervals, and the line of its differences with a mark for each level."""
    steps, (name, unit) = [step for step, _ in line], (line[0][1].name, line[0][1].unit)
    axis = {"yaxis": "y2"} if panel else {}
    lows, highs = ([_scaled(part.interval[end], unit) for _, part in line] for end in (0, 1))
    band = {
        "type": "scatter",
        "mode": "lines",
        "x": [*steps, *reversed(steps)],
        "y": [*highs, *reversed(lows)],
        "fill": "toself",
        "fillcolor": "var(--tint)",
        "opacity": 0.6,
        "line": {"width": 0, "color": "var(--clear)"},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    drawn = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": escape(name),
        "x": steps,
        "y": [_scaled(part.difference, unit) for _, part in line],
        "line": {"color": "var(--ink)", "width": 1.5, "dash": dash},
        "marker": _marks(line),
        "customdata": [_slice_told(part) for _, part in line],
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    return [band | axis, drawn | axis]


def _marks(line: Sequence[tuple[int, Slice]]) -> dict[str, Any]:
    looks = [LEVELS[part.level] for _, part in line]
    return {"color": [color for color, _ in looks], "symbol": [symbol for _, symbol in looks], "size": 9}


def _slice_told(part: Slice) -> str:
    moved = f"{difference(part.difference, part.unit)} (95 %: {bounds(part.interval, part.unit, signed=True)})"
    return f"{escape(part.name)}: {moved}, {part.level}"


def _forgetting_layout(units: Sequence[str]) -> dict[str, Any]:
    base = layout(340 if len(units) == 1 else 460, "step")
    panels = [AXIS | {"title": {"text": TITLES[unit]} | SMALL, "rangemode": "tozero"} for unit in units]
    base["yaxis"] = panels[0]
    if len(units) > 1:
        base["yaxis"] |= {"domain": UPPER}
        base["yaxis2"] = panels[1] | {"domain": LOWER}
        base["xaxis"]["anchor"] = "y2"
    zero = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0}
    line = {"line": {"color": "var(--muted)", "width": 1}}
    base["shapes"] = [zero | line | {"yref": axis} for axis in ("y", "y2")[: len(units)]]
    return base


def _limits(thresholds: Sequence[Threshold], unit: str, panel: int) -> list[dict[str, Any]]:
    """Where amber and red begin, of all slices of one unit; nothing where they differ."""
    lines = []
    own = [t for t in thresholds if t.unit == unit]
    for values, color in (({t.amber for t in own}, "var(--warning)"), ({t.red for t in own}, "var(--fault)")):
        at = values.pop() if len(values) == 1 else None
        if at is not None:
            line = {"color": color, "width": 1.5, "dash": "dot"}
            place = {"xref": "paper", "x0": 0, "x1": 1, "yref": ("y", "y2")[panel]}
            lines.append({"type": "line", "y0": _scaled(at, unit), "y1": _scaled(at, unit), "line": line} | place)
    return lines


def frontier_figure(events: Sequence[Event]) -> dict[str, Any] | None:
    """What was learned against what was forgotten: a point for each step at which both were measured, joined in the
    order of the steps; down and left is better. Slices whose measure is a loss.
    """
    losses = {e.step: e.loss for e in events if isinstance(e, Validation)}
    seen = [e for e in events if isinstance(e, Watched) and e.step in losses]
    lines = {key: line for key, line in _by_slice(seen).items() if line[0][1].unit != "share" and len(line) > 1}
    if not lines:
        return None
    data = []
    for number, line in enumerate(lines.values()):
        points = thin(line, POINTS)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": escape(points[0][1].name),
                "x": [float(f"{losses[step]:.5g}") for step, _ in points],
                "y": [float(f"{part.difference:.5g}") for _, part in points],
                "error_y": _errors(points),
                "line": {"color": "var(--ink)", "width": 1, "dash": DASHES[number % len(DASHES)]},
                "marker": _marks(points),
                "customdata": [f"step {step}<br>{_slice_told(part)}" for step, part in points],
                "hovertemplate": "%{customdata}<br>validation loss %{x:.3f} nats<extra></extra>",
            }
        )
    drawn = layout(340, "validation loss (nats per token)") | {"hovermode": "closest"}
    drawn["xaxis"] |= {"autorange": "reversed", "rangemode": "normal"}
    drawn["yaxis"] = AXIS | {"title": {"text": "loss above the base (nats)"} | SMALL, "rangemode": "tozero"}
    return {"data": data, "layout": drawn}


def _errors(points: Sequence[tuple[int, Slice]]) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [float(f"{part.interval[1] - part.difference:.5g}") for _, part in points],
        "arrayminus": [float(f"{part.difference - part.interval[0]:.5g}") for _, part in points],
        "color": "var(--muted)",
        "thickness": 1,
        "width": 3,
    }
