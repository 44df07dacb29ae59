"""`rankwise tables` as one self-contained HTML file, with what each size takes and what it costs as pictures."""

import math
from collections.abc import Sequence
from typing import Any

from rankwise.records.tables import CostRow, MemoryRow, Tables
from rankwise.report import tables_words
from rankwise.report.page import render

# Recipe -> colour, line and symbol; colours are names of CSS variables.
LOOKS = {
    "ZeRO-3": ("var(--fault)", "solid", "circle"),
    "autocast": ("var(--warning)", "dash", "square"),
    "pure bf16": ("var(--ink)", "dot", "triangle-up"),
    "LoRA": ("var(--accent)", "solid", "circle"),
    "QLoRA": ("var(--good)", "dash", "square"),
}
SAID_COLORS = {"full": "var(--fault)", "lora": "var(--accent)", "qlora": "var(--good)"}
COST_LOOKS = {0: ("var(--accent)", "circle", -0.2), 1: ("var(--ink)", "square", 0.2)}
SAID_WIDTH = 0.7
TICKS = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
TERMS = (
    ("LoRA", "Trains two thin matrices (of rank r) beside each frozen weight matrix: a small file, not a new model."),
    ("QLoRA", "LoRA beside weights that are frozen in 4 bits: less memory, slower steps."),
    ("Full fine-tuning", "Trains every weight; the result is a whole new model."),
    ("State", "Weights, gradients and what the optimizer remembers, over all GPUs; activations come on top of it."),
    ("FSDP, ZeRO-3", "Ways to split the state over several GPUs; each gathers a layer's weights while it runs."),
    ("Gradient checkpointing", "Activations are computed again in the backward pass instead of being kept."),
    ("Resumable checkpoint", "Weights with the optimizer's state, so that training can go on from it."),
    ("In brackets", "The interval in which the true value is expected."),
)


def tables_page(tables: Tables, *, version: str) -> str:
    """The page. Parts that were not asked for are left out."""
    figures = {}
    if tables.memory:
        figures["memory-data"] = memory_figure(tables.memory)
    if any(row.usd_at_said_price is not None for row in tables.cost):
        figures["cost-data"] = cost_figure(tables.cost)
    context = {"tables": tables, "say": tables_words, "terms": TERMS, "drawn": list(figures)}
    return render("tables.html.j2", context, version=version, figures=figures)


def memory_figure(rows: Sequence[MemoryRow]) -> dict[str, Any]:
    """State by size and recipe on a log scale, the lesson's figures as diamonds, the cards as lines."""
    sizes = list(dict.fromkeys(row.size for row in rows))
    data = [_recipe_line(name, [row for row in rows if row.recipe == name]) for name in LOOKS]
    data += [_said_marks(way, rows) for way in SAID_COLORS]
    cards = {fit.gpu: fit.capacity for row in rows for fit in row.fits}
    last = [row for row in rows if row.size == sizes[-1] and row.recipe in LOOKS]
    layout = _layout(height=520, right=96)
    layout["xaxis"] |= {"type": "category", "categoryarray": sizes, "range": [-1.0, len(sizes) - 0.85]}
    layout["yaxis"] |= _log_axis("state of the whole model (GB)")
    layout["shapes"] = [_card_line(capacity) for capacity in cards.values()]
    layout["annotations"] = [
        *(_card_label(gpu, capacity) for gpu, capacity in cards.items()),
        *(_end_label(row, sizes[-1]) for row in last),
    ]
    return {"data": data, "layout": layout}


def _recipe_line(name: str, rows: Sequence[MemoryRow]) -> dict[str, Any]:
    color, dash, symbol = LOOKS[name]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [row.size for row in rows],
        "y": [_giga(row.state_bytes) for row in rows],
        "line": {"color": color, "width": 2, "dash": dash},
        "marker": {"color": color, "size": 8, "symbol": symbol},
        "hovertemplate": "%{y:,.3g} GB",
        "showlegend": False,
    }


def _said_marks(way: str, rows: Sequence[MemoryRow]) -> dict[str, Any]:
    said = {row.size: row.said for row in rows if row.method == way and row.said is not None}
    name = f"the lesson, {tables_words.method(way)}"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": list(said),
        "y": [_giga(cell.bytes) for cell in said.values()],
        "marker": {"color": SAID_COLORS[way], "size": 13, "symbol": "diamond-open", "line": {"width": 2}},
        "hovertemplate": "%{y:,.3g} GB",
    }


def _giga(number: float) -> float:
    return float(f"{number / 1e9:.4g}")


def _card_line(capacity: int) -> dict[str, Any]:
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": _giga(capacity),
        "y1": _giga(capacity),
        "line": {"color": "var(--muted)", "width": 1, "dash": "longdash"},
        "layer": "below",
    }


def _card_label(gpu: str, capacity: int) -> dict[str, Any]:
    return _label(f"one {gpu}", capacity) | {"xref": "paper", "x": 0, "xanchor": "left", "yanchor": "bottom"}


def _end_label(row: MemoryRow, size: str) -> dict[str, Any]:
    text = _label(row.recipe, row.state_bytes) | {"x": size, "xanchor": "left", "yanchor": "middle", "xshift": 12}
    return text | {"font": {"size": 12, "color": LOOKS[row.recipe][0]}}


def _label(text: str, number: int) -> dict[str, Any]:
    """On a log axis an annotation stands at the logarithm."""
    return {
        "y": math.log10(_giga(number)),
        "yref": "y",
        "text": text,
        "showarrow": False,
        "font": {"size": 12, "color": "var(--muted)"},
    }


def cost_figure(rows: Sequence[CostRow]) -> dict[str, Any]:
    """The lesson's ranges as bars, computed costs at its own price with their intervals, one mark a length."""
    names = list(dict.fromkeys((row.size, row.method) for row in rows))
    lengths = sorted({row.tokens_per_example for row in rows})
    said = {(row.size, row.method): row.said for row in rows if row.said is not None}
    bars = {
        "type": "bar",
        "name": "the lesson's range",
        "x": [names.index(name) for name in said],
        "base": [cell.usd[0] for cell in said.values()],
        "y": [cell.usd[1] - cell.usd[0] for cell in said.values()],
        "customdata": [cell.text for cell in said.values()],
        "marker": {"color": "var(--line)", "line": {"color": "var(--muted)", "width": 1}},
        "width": SAID_WIDTH,
        "hovertemplate": "%{customdata}",
    }
    layout = _layout(height=460, right=12)
    ticks = [f"{size}<br>{tables_words.method(way)}" for size, way in names]
    layout["xaxis"] |= {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": ticks}
    layout["xaxis"] |= {"range": [-0.6, len(names) - 0.4]}
    layout["yaxis"] |= _log_axis(f"USD at {said_price(rows):.3g} USD a GPU-hour")
    layout["hovermode"] = "closest"
    points = [_points(rows, tokens, names, number) for number, tokens in enumerate(lengths)]
    return {"data": [bars, *points], "layout": layout}


def said_price(rows: Sequence[CostRow]) -> float:
    """The lesson's USD of a GPU-hour, as the rows were computed with it."""
    row = next(r for r in rows if r.usd_at_said_price is not None and r.gpu_hours)
    assert row.usd_at_said_price is not None and row.gpu_hours is not None
    return row.usd_at_said_price / row.gpu_hours


def _points(rows: Sequence[CostRow], tokens: int, names: Sequence[tuple[str, str]], number: int) -> dict[str, Any]:
    color, symbol, shift = COST_LOOKS[number % 2]
    kept = [row for row in rows if row.tokens_per_example == tokens and row.usd_at_said_price is not None]
    spans = [row.usd_at_said_price_interval for row in kept]
    middles = [row.usd_at_said_price or 0.0 for row in kept]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"computed, {tokens:,} tokens an example",
        "x": [names.index((row.size, row.method)) + shift for row in kept],
        "y": [float(f"{y:.4g}") for y in middles],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [s[1] - y if s else 0 for s, y in zip(spans, middles, strict=True)],
            "arrayminus": [y - s[0] if s else 0 for s, y in zip(spans, middles, strict=True)],
            "color": color,
            "thickness": 1.5,
            "width": 4,
        },
        "marker": {"color": color, "size": 9, "symbol": symbol},
        "hovertemplate": "%{y:,.3g} USD",
    }


def _log_axis(title: str) -> dict[str, Any]:
    title_font = {"size": 12, "color": "var(--muted)"}
    axis = {"type": "log", "title": {"text": title, "font": title_font}, "hoverformat": ",.3~g"}
    return axis | {"tickmode": "array", "tickvals": list(TICKS), "ticktext": [f"{tick:,}" for tick in TICKS]}


def _layout(height: int, right: int) -> dict[str, Any]:
    axis = {"gridcolor": "var(--line)", "linecolor": "var(--line)", "zeroline": False, "fixedrange": True}
    return {
        "height": height,
        "margin": {"l": 66, "r": right, "t": 8, "b": 44},
        "paper_bgcolor": "var(--clear)",
        "plot_bgcolor": "var(--clear)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "var(--ink)"},
        "hovermode": "x unified",
        "hoverlabel": {"bgcolor": "var(--paper)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}},
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "var(--clear)"},
        "xaxis": dict(axis) | {"showgrid": False},
        "yaxis": dict(axis),
    }
