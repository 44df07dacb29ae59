"""A diagnosis as one self-contained HTML file."""

from typing import Any

from rankwise.records import Diagnosis, Job
from rankwise.report import diagnosis_words
from rankwise.report.page import render

# Measure -> its name in the legend, colour and symbol.
LINES = {
    "loss_names": ("names and numbers", "var(--fault)", "circle"),
    "loss_own": ("names and numbers of the row's own", "var(--accent)", "diamond"),
    "loss_rest": ("the rest", "var(--ink)", "square"),
}
TERMS = (
    ("Held-out row", "A row that no training would see; the base is asked its question."),
    ("Zero-shot", "Asked with nothing before the question."),
    ("Few-shot", "Asked after examples from the training rows: they show the manner, not this row's facts."),
    ("With source", "The same examples, and before the question a text that holds the answer or is nearest to it."),
    ("Loss", "Cross-entropy in nats per token of the right answer: 0 would be certainty, 0.1 about 90 % a token."),
    ("In brackets", "95 % interval."),
)


def diagnosis_page(found: Diagnosis, job: Job, *, version: str) -> str:
    """The page, from the record and the job alone."""
    figure = loss_figure(found)
    context = {"found": found, "job": job, "say": diagnosis_words, "terms": TERMS}
    return render("diagnosis.html.j2", context, version=version, figures={"loss-data": figure})


def loss_figure(found: Diagnosis) -> dict[str, Any]:
    """Loss by condition, one line for each kind of token, with intervals."""
    axis = {"gridcolor": "var(--line)", "linecolor": "var(--line)", "zeroline": False, "fixedrange": True}
    title = {"text": "nats per token", "font": {"size": 12, "color": "var(--muted)"}}
    layout = {
        "height": 340,
        "margin": {"l": 56, "r": 12, "t": 8, "b": 40},
        "paper_bgcolor": "var(--clear)",
        "plot_bgcolor": "var(--clear)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "var(--ink)"},
        "hovermode": "x unified",
        "hoverlabel": {"bgcolor": "var(--paper)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}},
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "var(--clear)"},
        "xaxis": axis | {"type": "category", "showgrid": False},
        "yaxis": axis | {"title": title, "rangemode": "tozero"},
    }
    return {"data": [line for name in LINES if (line := _line(found, name))], "layout": layout}


def _line(found: Diagnosis, name: str) -> dict[str, Any] | None:
    label, color, symbol = LINES[name]
    points = [(c.name, m) for c in found.conditions if (m := c.measurements.get(name))]
    if not points:
        return None
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label,
        "x": [at for at, _ in points],
        "y": [round(m.value, 4) for _, m in points],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [round(m.interval[1] - m.value, 4) for _, m in points],
            "arrayminus": [round(m.value - m.interval[0], 4) for _, m in points],
            "color": color,
            "thickness": 1.5,
            "width": 4,
        },
        "line": {"color": color, "width": 2},
        "marker": {"color": color, "size": 8, "symbol": symbol},
        "hovertemplate": "%{y:.2f}",
    }
