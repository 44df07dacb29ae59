"""The reliability plot: how sure a model was against how often it was right, base and tuned."""

import math
from collections.abc import Sequence
from typing import Any

from rankwise.records import Bin, Evaluation, Interval, Reliability
from rankwise.report.figure import AXIS, SMALL, layout
from rankwise.report.quantities import count, share

NORMAL_95 = 1.96
KINDS = {"answers": "answers", "choices": "multiple choice"}
LOOKS = {  # model -> colour, symbol, dash
    "base": ("var(--muted)", "circle-open", "dot"),
    "tuned": ("var(--accent)", "circle", "solid"),
}


def reliability_figures(evaluation: Evaluation | None) -> dict[str, dict[str, Any]]:
    """A figure for each kind that was measured, by the id that the page names it with."""
    measured = evaluation.reliability if evaluation else ()
    return {f"reliability-{one.kind}-data": _figure(one) for one in measured if any(b.items for b in one.tuned)}


def _figure(measured: Reliability) -> dict[str, Any]:
    bins = {"base": measured.base, "tuned": measured.tuned}
    lines = [_line(name, [b for b in found if b.items]) for name, found in bins.items()]
    drawn = layout(340, f"how sure it was ({KINDS[measured.kind]}), %") | {"hovermode": "closest"}
    drawn["xaxis"] |= {"range": [-3, 103]}
    drawn["yaxis"] = AXIS | {"title": {"text": "right, %"} | SMALL, "range": [-3, 103]}
    even = {"type": "line", "x0": 0, "y0": 0, "x1": 100, "y1": 100}
    drawn["shapes"] = [even | {"line": {"color": "var(--muted)", "width": 1, "dash": "dash"}}]
    return {"data": [line for line in lines if line["x"]], "layout": drawn}


def _line(name: str, bins: Sequence[Bin]) -> dict[str, Any]:
    color, symbol, dash = LOOKS[name]
    known = [(b, b.confidence, b.accuracy) for b in bins if b.confidence is not None and b.accuracy is not None]
    ends = [wilson(accuracy, b.items) for b, _, accuracy in known]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [_percent(confidence) for _, confidence, _ in known],
        "y": [_percent(accuracy) for _, _, accuracy in known],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [_percent(high - a) for (_, _, a), (_, high) in zip(known, ends, strict=True)],
            "arrayminus": [_percent(a - low) for (_, _, a), (low, _) in zip(known, ends, strict=True)],
            "color": color,
            "thickness": 1,
            "width": 3,
        },
        "line": {"color": color, "width": 1.5, "dash": dash},
        "marker": {"color": color, "symbol": symbol, "size": 9},
        "customdata": [
            f"{name}: {count(b.items)} answers, sure by {share(confidence)}, {share(accuracy)} right"
            for b, confidence, accuracy in known
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def wilson(accuracy: float, items: int) -> Interval:
    """95 % interval of a share of so many items (Wilson 1927), which stays within 0 and 1."""
    z2 = NORMAL_95**2 / items
    middle = (accuracy + z2 / 2) / (1 + z2)
    half = math.sqrt(accuracy * (1 - accuracy) * z2 + z2**2 / 4) / (1 + z2)
    return max(0.0, min(middle - half, accuracy)), min(1.0, max(middle + half, accuracy))


def _percent(value: float) -> float:
    return float(f"{100 * value:.4g}")
