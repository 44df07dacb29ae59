"""Losses along the runs of a comparison, and its sweep of learning rates, as data for Plotly.

Colours are names of CSS variables, which the page resolves.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rankwise.records import Bakeoff, CurvePoint, Outcome, Trial
from rankwise.report.compare_looks import Look, looks
from rankwise.report.compared import finals
from rankwise.report.cost_axis import short, ticks
from rankwise.report.figure import AXIS, SMALL, layout
from rankwise.report.quantities import common_scale, duration, flops, learning_rate, plain

MOST_RATES = 4  # on the axis of a sweep: they are long words for a phone


def curve_figures(bakeoff: Bakeoff, trials: Sequence[Trial]) -> dict[str, dict[str, Any]]:
    """Loss by FLOPs and by seconds: each seed a thin line, the mean of an arm a thick one. Empty where nothing has
    trained.
    """
    runs = {arm: [t.curve for t in own if len(t.curve) > 1] for arm, own in finals(trials).items()}
    runs = {arm: curves for arm, curves in runs.items() if curves}
    if not runs:
        return {}
    return {
        "curves-flops": _curves(bakeoff, runs, "flops", "FLOP", "training FLOPs of the run"),
        "curves-seconds": _curves(bakeoff, runs, "seconds", "s", "training time of the run"),
    }


def _curves(
    bakeoff: Bakeoff, runs: dict[str, list[tuple[CurvePoint, ...]]], field: str, unit: str, title: str
) -> dict[str, Any]:
    own = looks(bakeoff)
    farthest = [getattr(p, field) for curves in runs.values() for curve in curves for p in curve]
    unit, factor = common_scale(farthest, unit)
    data = []
    for arm, curves in runs.items():
        for curve in curves if len(curves) > 1 else []:
            data.append(_curve(own[arm], curve, field, factor, width=1.0))
        data.append(_curve(own[arm], mean_curve(curves), field, factor, width=3.0))
    drawn = layout(320, f"{title} ({unit})") | {"hovermode": "closest", "showlegend": False}
    drawn["yaxis"] = AXIS | {"title": {"text": "loss (nats per token)"} | SMALL, "rangemode": "tozero"}
    drawn["margin"] = {"l": 62, "r": 14, "t": 10, "b": 44}
    return {"data": data, "layout": drawn}


def mean_curve(curves: Sequence[Sequence[CurvePoint]]) -> tuple[CurvePoint, ...]:
    """The mean of the seeds at every step at which all of them were measured."""
    by_step = [{p.step: p for p in curve} for curve in curves]
    common = sorted(set.intersection(*(set(points) for points in by_step)))
    return tuple(_mean_point(step, [points[step] for points in by_step]) for step in common)


def _mean_point(step: int, points: Sequence[CurvePoint]) -> CurvePoint:
    return CurvePoint(
        step=step,
        flops=sum(p.flops for p in points) / len(points),
        seconds=sum(p.seconds for p in points) / len(points),
        loss=sum(p.loss for p in points) / len(points),
    )


def _curve(look: Look, curve: Sequence[CurvePoint], field: str, factor: float, *, width: float) -> dict[str, Any]:
    thick = width > 1
    line = {
        "type": "scatter",
        "mode": "lines+markers" if thick else "lines",
        "name": escape(look.arm),
        "x": [short(getattr(p, field) / factor) for p in curve],
        "y": [short(p.loss) for p in curve],
        "line": {"color": look.color, "width": width},
        "opacity": 1.0 if thick else 0.55,
        "marker": {"color": look.color, "size": 7, "symbol": look.symbol},
    }
    if not thick:
        return line | {"hoverinfo": "skip"}
    told = [
        f"<b>{escape(look.arm)}</b>, step {p.step}<br>{p.loss:.3f} nats per token<br>{flops(p.flops)}, "
        f"{duration(p.seconds)}"
        for p in curve
    ]
    return line | {"customdata": told, "hovertemplate": "%{customdata}<extra></extra>"}


@dataclass(frozen=True)
class Tried:
    """A learning rate of an arm's sweep.

    Attributes:
        loss: at the end of its run, nats per token; None: it diverged.
        mark: "", "chosen" or "chosen, at the edge".
    """

    arm: str
    rate: float
    steps: int
    loss: float | None
    mark: str


def tried_rates(bakeoff: Bakeoff, trials: Sequence[Trial], outcome: Outcome | None) -> tuple[Tried, ...]:
    """Every rate of every sweep, arm by arm, in rising order."""
    chosen = {r.arm: r for r in outcome.results} if outcome else {}
    found = []
    for allowance in bakeoff.allowances:
        arm = allowance.arm.name
        result = chosen.get(arm)
        swept = [t for t in trials if t.arm == arm and t.purpose == "sweep" and t.learning_rate is not None]
        for trial in sorted(swept, key=lambda t: t.learning_rate or 0.0):
            taken = result is not None and result.learning_rate == trial.learning_rate
            mark = ("chosen, at the edge" if result and result.at_the_edge else "chosen") if taken else ""
            found.append(Tried(arm, trial.learning_rate or 0.0, trial.steps, trial.chosen_by, mark))
    return tuple(found)


def sweep_figure(bakeoff: Bakeoff, tried: Sequence[Tried]) -> dict[str, Any] | None:
    """Loss by learning rate, a line for each arm; a ring around the chosen rate, a dotted one at the edge. None where
    fewer than two rates came to an end.
    """
    known = [t for t in tried if t.loss is not None]
    if len(known) < 2:
        return None
    rates = [t.rate for t in tried]
    across = _rates_axis(min(rates), max(rates))
    drawn = layout(320, "learning rate") | {"hovermode": "closest", "showlegend": False}
    drawn["xaxis"] |= across | {"rangemode": "normal"}
    drawn["yaxis"] = AXIS | {"title": {"text": "loss at the end (nats per token)"} | SMALL, "rangemode": "tozero"}
    drawn["margin"] = {"l": 62, "r": 14, "t": 10, "b": 44}
    drawn["annotations"] = [_diverged(t, looks(bakeoff)[t.arm]) for t in tried if t.loss is None]
    return {"data": list(_sweep_traces(bakeoff, known)), "layout": drawn}


def _diverged(tried: Tried, look: Look) -> dict[str, Any]:
    """At the top of the picture, since there is no loss to draw; on a log axis a label stands at the logarithm."""
    return {
        "x": short(math.log10(tried.rate)),
        "y": 1.0,
        "yref": "paper",
        "xanchor": "right",
        "yanchor": "top",
        "text": f"{look.sign} diverged",
        "showarrow": False,
        "font": {"size": 12, "color": look.color},
    }


def _rates_axis(low: float, high: float) -> dict[str, Any]:
    shown = ticks(low / 1.2, high * 1.2, MOST_RATES)
    ends = [short(math.log10(low) - 0.2), short(math.log10(high) + 0.2)]
    return {
        "type": "log",
        "range": ends,
        "tickmode": "array",
        "tickvals": shown,
        "ticktext": [learning_rate(t) for t in shown],
    }


def _sweep_traces(bakeoff: Bakeoff, tried: Sequence[Tried]) -> Iterator[dict[str, Any]]:
    for arm, look in looks(bakeoff).items():
        own = [t for t in tried if t.arm == arm]
        if not own:
            continue
        yield {
            "type": "scatter",
            "mode": "lines+markers",
            "name": escape(arm),
            "x": [t.rate for t in own],
            "y": [short(t.loss or 0.0) for t in own],
            "line": {"color": look.color, "width": 1.5},
            "marker": {"color": look.color, "size": 9, "symbol": look.symbol},
            "customdata": [_tried_told(t) for t in own],
            "hovertemplate": "%{customdata}<extra></extra>",
        }
        for t in (t for t in own if t.mark):
            at_edge = t.mark != "chosen"
            color = "var(--fault)" if at_edge else "var(--ink)"
            ring = {"color": color, "size": 20, "symbol": "circle-open", "line": {"width": 2}}
            yield {
                "type": "scatter",
                "mode": "markers+text" if at_edge else "markers",
                "x": [t.rate],
                "y": [short(t.loss or 0.0)],
                "text": ["at the edge"] if at_edge else [],
                "textposition": "top left" if t.rate == own[-1].rate else "top right",  # away from the frame
                "textfont": {"color": color, "size": 12},
                "marker": ring,
                "hoverinfo": "skip",
            }


def _tried_told(tried: Tried) -> str:
    mark = f" ({tried.mark})" if tried.mark else ""
    return (
        f"<b>{escape(tried.arm)}</b>, {learning_rate(tried.rate)}{mark}<br>"
        f"{plain(tried.loss)} nats per token after {tried.steps} steps"
    )
