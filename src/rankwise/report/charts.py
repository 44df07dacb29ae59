"""Pictures as data: the training curves for Plotly, and the geometry of the small bars drawn in plain HTML.

Colours are names of CSS variables; the page resolves them, so that one chart serves light, dark and paper.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.records import Actual, Comparison, Estimate, Event, Step, Validation
from rankwise.report.glossary import BUCKETS

POINTS = 1500  # per curve; more cannot be seen and would only make the file heavy
WIDEST_RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)


@dataclass(frozen=True)
class Track:
    """A dot and an interval on a horizontal scale; all positions in percent of the width."""

    low: float
    high: float
    dot: float | None


@dataclass(frozen=True)
class Segment:
    """One part of a stacked bar."""

    name: str
    meaning: str
    number: int
    share: float


@dataclass(frozen=True)
class MemoryBar:
    """The peak of one device by what fills it, and the peak against what the device has."""

    segments: tuple[Segment, ...]
    device: Track


def thin(items: Sequence[Any], most: int = POINTS) -> list[Any]:
    """At most `most` items, evenly spaced, with the first and the last."""
    if len(items) <= most:
        return list(items)
    stride = (len(items) - 1) / (most - 1)
    return [items[round(i * stride)] for i in range(most)]


def training_curves(events: Sequence[Event]) -> dict[str, Any] | None:
    """A Plotly figure: loss and validation loss above, learning rate below. None when no step was taken."""
    steps = thin([e for e in events if isinstance(e, Step)])
    checks = thin([e for e in events if isinstance(e, Validation)])
    if not steps and len(checks) < 2:
        return None
    x = [s.step for s in steps]
    loss = _line("training loss", x, [s.loss for s in steps], "var(--muted)", width=1.5)
    held_out = _line("validation loss", [c.step for c in checks], [c.loss for c in checks], "var(--accent)", width=2.5)
    held_out |= {"mode": "lines+markers", "marker": {"size": 8, "color": "var(--accent)", "symbol": "diamond"}}
    rate = _line("learning rate", x, [s.learning_rate for s in steps], "var(--ink)", width=1.5)
    rate |= {"yaxis": "y2", "hovertemplate": "%{y:.3g}", "line": {"color": "var(--ink)", "width": 1.5, "dash": "dot"}}
    return {"data": [loss, held_out, rate], "layout": _curve_layout(checks)}


def _line(name: str, x: list[int], y: list[float], color: str, width: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(x) < 3 else "lines",
        "name": name,
        "x": x,
        "y": [float(f"{value:.5g}") for value in y],
        "line": {"color": color, "width": width},
        "hovertemplate": "%{y:.3f} nats per token",
    }


def _curve_layout(checks: Sequence[Validation]) -> dict[str, Any]:
    axis = {"gridcolor": "var(--line)", "linecolor": "var(--line)", "zeroline": False, "fixedrange": True}
    small = {"font": {"size": 12, "color": "var(--muted)"}}
    upper = {"title": {"text": "loss (nats per token)"} | small, "domain": [0.34, 1], "rangemode": "tozero"}
    lower = {"title": {"text": "learning rate"} | small, "domain": [0, 0.22], "rangemode": "tozero", "nticks": 4}
    layout: dict[str, Any] = {
        "height": 420,
        "margin": {"l": 62, "r": 12, "t": 8, "b": 44},
        "paper_bgcolor": "var(--clear)",
        "plot_bgcolor": "var(--clear)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "var(--ink)"},
        "hovermode": "x unified",
        "hoverlabel": {"bgcolor": "var(--paper)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}},
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "var(--clear)"},
        "xaxis": axis | {"title": {"text": "step"} | small, "anchor": "y2", "rangemode": "tozero"},
        "yaxis": axis | upper,
        "yaxis2": axis | lower | {"exponentformat": "e"},
    }
    if checks and checks[0].step == 0:
        layout["annotations"] = [_base_label(checks[0].loss)]
    return layout


def _base_label(loss: float) -> dict[str, Any]:
    return {
        "x": 0,
        "y": loss,
        "text": "base",
        "showarrow": False,
        "xanchor": "left",
        "xshift": 9,
        "yshift": 9,
        "font": {"size": 12, "color": "var(--accent)"},
    }


def memory_bar(estimate: Estimate) -> MemoryBar:
    """Parts of the peak in the order of the record; what the parts do not explain is the process itself."""
    memory = estimate.memory
    parts = [(name, meaning, getattr(memory, name)) for name, meaning in BUCKETS.items()]
    rest = memory.peak_device - sum(number for _, _, number in parts)
    if rest > 0:
        parts.append(("process", "Python, libraries, device context and memory the allocator holds in reserve", rest))
    total = sum(number for _, _, number in parts) or 1
    segments = tuple(Segment(name, meaning, number, 100 * number / total) for name, meaning, number in parts)
    widest = max(memory.room, memory.interval[1], memory.peak_device, 1)
    low, high = (100 * end / widest for end in memory.interval)
    return MemoryBar(segments, Track(low, high, 100 * memory.peak_device / widest))


def capacity_mark(estimate: Estimate) -> float:
    """Where the capacity lies on the device scale of `memory_bar`, in percent."""
    memory = estimate.memory
    return 100 * memory.room / max(memory.room, memory.interval[1], memory.peak_device, 1)


def score_tracks(comparison: Comparison) -> tuple[Track, Track]:
    """Base and tuned on one scale: 0 to 100 % for shares, 0 (or what lies below) to the largest end for the rest."""
    ends = (*comparison.base_interval, *comparison.tuned_interval, comparison.base, comparison.tuned)
    low = min(0.0, *ends)
    full = 1.0 if comparison.unit == "share" else ((max(ends) - low) * 1.1 or 1.0)

    def at(value: float) -> float:
        return min(100.0, max(0.0, 100 * (value - low) / full))

    base, tuned = comparison.base_interval, comparison.tuned_interval
    return (
        Track(at(base[0]), at(base[1]), at(comparison.base)),
        Track(at(tuned[0]), at(tuned[1]), at(comparison.tuned)),
    )


def widest_ratio(actuals: Sequence[Actual]) -> float:
    """The factor at both ends of the scale on which all of these can be drawn."""
    ratios = [r for a in actuals for r in _ratios(a) if r is not None and r > 0]
    needed = max((max(r, 1 / r) for r in ratios), default=1.0)
    return next((widest for widest in WIDEST_RATIOS if needed <= widest), WIDEST_RATIOS[-1])


def ratio_track(actual: Actual, widest: float) -> Track | None:
    """Interval and outcome as multiples of the prediction, on a log scale with 1 in the middle; None without both."""
    ratios = _ratios(actual)
    if not ratios:
        return None
    low, high, dot = (None if r is None else _log_position(r, widest) for r in ratios)
    assert low is not None and high is not None
    return Track(low, high, dot)


def _ratios(actual: Actual) -> tuple[float | None, ...]:
    """Low end, high end and outcome over the prediction; empty where there is no scale to draw them on."""
    if not actual.predicted or actual.predicted < 0 or actual.interval is None:
        return ()
    return tuple(None if v is None else v / actual.predicted for v in (*actual.interval, actual.actual))


def _log_position(ratio: float, widest: float) -> float:
    """0 at 1 / widest, 50 at the prediction, 100 at widest; what lies beyond is drawn at the edge."""
    inside = min(widest, max(1 / widest, ratio))
    return 50 + 50 * math.log(inside) / math.log(widest)


def used_track(estimate: Estimate, used: int | None) -> Track:
    """The interval that was predicted for a device, and what was used of it, on a scale that holds all three."""
    widest = _widest(estimate, used)
    low, high = (100 * end / widest for end in estimate.memory.interval)
    return Track(low, high, None if used is None else 100 * used / widest)


def used_capacity(estimate: Estimate, used: int | None) -> float:
    """Where the capacity lies on the scale of `used_track`, in percent."""
    return 100 * estimate.memory.room / _widest(estimate, used)


def _widest(estimate: Estimate, used: int | None) -> float:
    return max(estimate.memory.room, estimate.memory.interval[1], used or 0, 1)
