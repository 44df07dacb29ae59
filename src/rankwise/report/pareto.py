"""Expected quality against what it costs, as one Plotly figure for each kind of cost, with the front of what can run.

Shapes tell what colours tell: a star is the call, a diamond the runner-up, a filled circle what could be chosen, an
open one what a rule excluded, a cross what does not fit. Colours are names of CSS variables, which the page resolves.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rankwise.records import Estimate, Interval, Plan, QualityPrior
from rankwise.report.figure import AXIS, SMALL
from rankwise.report.price_table import CandidateRow, candidate_rows
from rankwise.report.quantities import TIME_UNITS, common_scale, plain, share, size_scale

LOG_FROM = 6.0  # largest over smallest value, from which on an axis is logarithmic
TICKS = tuple(m * 10.0**e for e in range(-4, 7) for m in (1, 3))
HEIGHT = 320
NEAR_END = 0.7  # share of the width, from which on a centred label could be cut
WINDOW = 0.2  # below the best expected quality; what lies lower would press all others together, and is only named
LOOKS = {  # kind -> colour, symbol, size, width of the outline, in the order of drawing
    "does not fit": ("var(--muted)", "x-thin", 8, 2.0),
    "excluded": ("var(--muted)", "circle-open", 9, 1.5),
    "possible": ("var(--ink)", "circle", 9, 0.0),
    "runner-up": ("var(--ink)", "diamond", 12, 0.0),
    "the call": ("var(--accent)", "star", 16, 0.0),
}


@dataclass(frozen=True)
class Point:
    """One option: `x` in the unit of its panel, quality as a share, `runs` if memory, disk and budget allow it."""

    row: CandidateRow
    x: float
    prior: QualityPrior
    runs: bool

    @property
    def id(self) -> str:
        return self.row.estimate.id or self.row.estimate.method

    @property
    def kind(self) -> str:
        named = {"chosen": "the call", "runner-up": "runner-up", "possible": "possible", "rejected": "excluded"}
        return "does not fit" if self.row.estimate.memory.fits is False else named[self.row.role]


@dataclass(frozen=True)
class Panel:
    """A kind of cost: what its axis is called, its values, and the limit of the job on it."""

    id: str
    title: str
    unit: str
    points: tuple[Point, ...]
    limit: float | None
    limit_name: str


def panels(plan: Plan) -> tuple[Panel, ...]:
    """Cost of one run, time of one run, peak memory; a panel without two options to compare is left out."""
    rows = candidate_rows(plan)
    budget = plan.job.budget
    seconds = common_scale([r.estimate.time.train_seconds or 0.0 for r in rows], "s")
    memory = size_scale(max((r.estimate.memory.peak_device for r in rows), default=0))
    capacity = next((r.estimate.memory.capacity for r in rows if r.estimate.memory.capacity), None)
    usd_limit = None if budget.usd is None else budget.usd / plan.job.variants
    usd_name = "budget" if plan.job.variants == 1 else "budget of each"
    time_limit = None if budget.hours is None else budget.hours * dict(TIME_UNITS)["h"] / seconds[1]
    found = (
        _panel(plan, rows, "usd", "cost of one run", "USD", lambda e: e.money.train_usd, usd_limit, usd_name),
        _panel(plan, rows, "time", "time of one run", seconds[0], _scaled_time(seconds[1]), time_limit, "budget"),
        _panel(
            plan,
            rows,
            "memory",
            "peak memory of a device",
            memory[0],
            lambda e: e.memory.peak_device / memory[1],
            None if capacity is None else capacity / memory[1],
            "capacity",
        ),
    )
    return tuple(panel for panel in found if len(panel.points) > 1)


def _scaled_time(factor: float) -> Callable[[Estimate], float | None]:
    return lambda e: None if e.time.train_seconds is None else e.time.train_seconds / factor


def _panel(
    plan: Plan,
    rows: Sequence[CandidateRow],
    name: str,
    title: str,
    unit: str,
    value: Callable[[Estimate], float | None],
    limit: float | None,
    limit_name: str,
) -> Panel:
    points = []
    left_out = {row.estimate.id for row in not_drawn(plan)}
    for row in rows:
        x, prior = value(row.estimate), plan.priors.get(row.estimate.id or row.estimate.method)
        if x and prior and row.estimate.id not in left_out:
            points.append(Point(row, x, prior, can_run(plan, row.estimate)))
    return Panel(f"pareto-{name}", title, unit, tuple(points), limit, limit_name)


def not_drawn(plan: Plan) -> tuple[CandidateRow, ...]:
    """Excluded options whose expected quality lies far below the best."""
    best = max((p.value for p in plan.priors.values()), default=0.0)
    rows = ((row, plan.priors.get(row.estimate.id or row.estimate.method)) for row in candidate_rows(plan))
    return tuple(row for row, prior in rows if prior and row.role == "rejected" and prior.value < best - WINDOW)


def not_drawn_sentence(plan: Plan) -> str:
    """Not drawn, far below: ia3 (75 %, discouraged). Empty where everything is drawn."""
    told = []
    for row in not_drawn(plan):
        name = row.estimate.id or row.estimate.method
        told.append(f"{name} ({share(plan.priors[name].value)}, {row.rule})")
    return f"Not drawn, far below: {', '.join(told)}." if told else ""


def can_run(plan: Plan, estimate: Estimate) -> bool:
    """Memory, disk and budget allow one run for each tenant; of what is unknown, memory alone forbids it."""
    budget, disk = plan.job.budget, plan.facts.device.disk_free_bytes
    usd, seconds = estimate.money.train_usd, estimate.time.train_seconds
    return (
        estimate.memory.fits is True
        and (disk is None or estimate.storage.run_bytes <= disk)
        and (budget.usd is None or usd is None or usd * plan.job.variants <= budget.usd)
        and (budget.hours is None or seconds is None or seconds <= budget.hours * 3600)
    )


def front(points: Sequence[Point]) -> tuple[Point, ...]:
    """Of what can run: the options that no cheaper one equals in quality, cheapest first."""
    best, kept = -math.inf, []
    for point in sorted((p for p in points if p.runs), key=lambda p: (p.x, -p.prior.value)):
        if point.prior.value > best:
            best = point.prior.value
            kept.append(point)
    return tuple(kept)


def pareto_figures(plan: Plan) -> dict[str, dict[str, Any]]:
    """Plotly figures by panel id; empty where nothing is known of quality."""
    return {panel.id: _figure(panel) for panel in panels(plan)}


def _figure(panel: Panel) -> dict[str, Any]:
    kinds = [(kind, [p for p in panel.points if p.kind == kind]) for kind in LOOKS]
    traces = [_marks(kind, points, panel) for kind, points in kinds if points]
    return {"data": [_front_line(front(panel.points)), *traces], "layout": _layout(panel)}


def _front_line(points: Sequence[Point]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "front",
        "x": [_short(p.x) for p in points],
        "y": [_percent(p.prior.value) for p in points],
        "line": {"color": "var(--accent)", "width": 1.5, "dash": "dash", "shape": "hv"},
        "marker": {"color": "var(--accent)", "size": 17, "symbol": "circle-open", "line": {"width": 1}},
        "hoverinfo": "skip",
    }


def _marks(kind: str, points: Sequence[Point], panel: Panel) -> dict[str, Any]:
    color, symbol, size, outline = LOOKS[kind]
    values = [_percent(p.prior.value) for p in points]
    lows, highs = ([_percent(p.prior.interval[end]) for p in points] for end in (0, 1))
    return {
        "type": "scatter",
        "mode": "markers",
        "name": kind,
        "x": [_short(p.x) for p in points],
        "y": values,
        "customdata": [_told(p, panel) for p in points],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [_short(high - y) for high, y in zip(highs, values, strict=True)],
            "arrayminus": [_short(y - low) for low, y in zip(lows, values, strict=True)],
            "color": color,
            "thickness": 2 if kind == "the call" else 1,
            "width": 3,
        },
        "marker": {"color": color, "size": size, "symbol": symbol, "line": {"width": outline, "color": color}},
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _told(point: Point, panel: Panel) -> str:
    """What a pointer shows, as the markup that Plotly reads; text of the plan is escaped."""
    row = point.row
    low, high = point.prior.interval
    lines = [
        f"<b>{escape(point.id)}</b> ({point.kind})",
        f"{plain(point.x)} {panel.unit}, quality {_range_text(point.prior.value, (low, high))}",
    ]
    if row.rule:
        lines.append(escape(f"excluded by {row.rule}" + (f": {row.number}" if row.number else "")))
    return "<br>".join(lines)


def _range_text(value: float, interval: Interval) -> str:
    return f"{share(value)} ({share(interval[0]).removesuffix(' %')} to {share(interval[1])})"


def _layout(panel: Panel) -> dict[str, Any]:
    across, along = _scale(panel), {"title": {"text": "expected quality (% of full)"} | SMALL, "range": _heights(panel)}
    return {
        "height": HEIGHT,
        "margin": {"l": 52, "r": 10, "t": 22, "b": 44},
        "paper_bgcolor": "var(--clear)",
        "plot_bgcolor": "var(--clear)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "var(--ink)"},
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": "var(--paper)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)"},
            "align": "left",
        },
        "showlegend": False,
        "xaxis": AXIS | {"title": {"text": f"{panel.title} ({panel.unit})"} | SMALL} | across,
        "yaxis": AXIS | along,
        "shapes": [] if panel.limit is None else [_limit_line(panel)],
        "annotations": [] if panel.limit is None else [_limit_label(panel, panel.limit)],
    }


def _ends(panel: Panel) -> tuple[float, float]:
    values = [p.x for p in panel.points] + ([] if panel.limit is None else [panel.limit])
    return min(values), max(values)


def _logarithmic(panel: Panel) -> bool:
    low, high = _ends(panel)
    return high / low > LOG_FROM


def _scale(panel: Panel) -> dict[str, Any]:
    low, high = _ends(panel)
    if not _logarithmic(panel):
        pad = 0.1 * (high - low) or 0.1 * high
        return {"range": [_short(max(0.0, low - pad)), _short(high + pad)], "nticks": 5}
    ends = [math.log10(low) - 0.2, math.log10(high) + 0.25]
    ticks = [t for t in TICKS if ends[0] <= math.log10(t) <= ends[1]]
    if len(ticks) > 6:
        ticks = [t for t in ticks if math.isclose(math.log10(t) % 1, 0, abs_tol=1e-9)]
    text = [f"{t:,.0f}" if t >= 1 else f"{t:g}" for t in ticks]
    return {"type": "log", "range": ends, "tickmode": "array", "tickvals": ticks, "ticktext": text}


def _heights(panel: Panel) -> list[float]:
    ends = [_percent(end) for p in panel.points for end in (*p.prior.interval, p.prior.value)]
    pad = max(2.0, 0.06 * (max(ends) - min(ends)))
    return [_short(min(ends) - pad), _short(max(ends) + pad)]


def _limit_line(panel: Panel) -> dict[str, Any]:
    line = {"color": "var(--fault)", "width": 1.5, "dash": "dot"}
    return {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": panel.limit, "x1": panel.limit, "line": line}


def _limit_label(panel: Panel, limit: float) -> dict[str, Any]:
    """On a log axis a label stands at the logarithm; near an end it is written towards the middle."""
    at, (low, high) = math.log10(limit) if _logarithmic(panel) else limit, _scale(panel)["range"]
    along = (at - low) / (high - low)
    return {
        "text": panel.limit_name,
        "x": at,
        "xanchor": "right" if along > NEAR_END else "left" if along < 1 - NEAR_END else "center",
        "yref": "paper",
        "y": 1.0,
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 12, "color": "var(--fault)"},
    }


def _percent(value: float) -> float:
    return _short(100 * value)


def _short(value: float) -> float:
    return float(f"{value:.5g}")
