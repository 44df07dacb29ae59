"""What the figures of a run share: axes, colours of levels, and a layout that a phone and a sheet of paper can show.

Plotly figures as data. Colours are names of CSS variables; marks tell by their shape what they tell by their colour.
"""

from typing import Any

SMALL = {"font": {"size": 12, "color": "var(--muted)"}}
AXIS = {"gridcolor": "var(--line)", "linecolor": "var(--line)", "zeroline": False, "fixedrange": True}
UPPER, LOWER = [0.55, 1], [0, 0.45]  # of a figure with two panels


def layout(height: int, across: str) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 62, "r": 12, "t": 8, "b": 44},
        "paper_bgcolor": "var(--clear)",
        "plot_bgcolor": "var(--clear)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "var(--ink)"},
        "hovermode": "x",
        "hoverlabel": {"bgcolor": "var(--paper)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}},
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "var(--clear)"},
        "xaxis": AXIS | {"title": {"text": across} | SMALL, "rangemode": "tozero"},
    }
