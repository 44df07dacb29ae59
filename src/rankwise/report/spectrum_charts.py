"""Pictures of what a run changed: the effective rank of each update, and how the updates grew."""

import re
from collections.abc import Sequence
from html import escape
from itertools import product
from statistics import median
from typing import Any

from rankwise.records import Event, ModuleSpectrum, SpectrumSeen
from rankwise.report.figure import AXIS, LOWER, SMALL, UPPER, layout
from rankwise.report.quantities import UNKNOWN, plain, share

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


def spectrum_figure(events: Sequence[Event]) -> dict[str, Any] | None:
    """Effective rank of each update at the end, a row a layer, a column a kind of matrix."""
    last = next((e for e in reversed(events) if isinstance(e, SpectrumSeen)), None)
    placed = _placed(last.modules) if last else {}
    if not any(m.effective_rank is not None for m in placed.values()):
        return None
    layers = sorted({layer for layer, _ in placed}, key=_in_order)
    kinds = list(dict.fromkeys(kind for _, kind in placed))
    cells = {key: placed.get(key) for key in product(layers, kinds)}
    heat = {
        "type": "heatmap",
        "x": [escape(kind) for kind in kinds],
        "y": [escape(layer) for layer in layers],
        "z": [[_rank(cells[layer, kind]) for kind in kinds] for layer in layers],
        "customdata": [[_module_told(cells[layer, kind]) for kind in kinds] for layer in layers],
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "colorscale": [[0, "var(--sheet)"], [1, "var(--accent)"]],
        "zmin": 1,
        "zmax": max(2.0, *(m.effective_rank or 0.0 for m in placed.values())),
        "colorbar": {"title": {"text": "effective<br>rank"} | SMALL, "thickness": 12, "outlinewidth": 0},
        "xgap": 1,
        "ygap": 1,
    }
    drawn = layout(max(280, min(720, 90 + 16 * len(layers))), "") | {"hovermode": "closest"}
    drawn["xaxis"] = AXIS | {"type": "category", "tickangle": -30, "automargin": True}
    drawn["yaxis"] = AXIS | {"type": "category", "title": {"text": "layer"} | SMALL, "nticks": 20}
    return {"data": [heat], "layout": drawn}


def _placed(modules: Sequence[ModuleSpectrum]) -> dict[tuple[str, str], ModuleSpectrum]:
    """By (number of the layer, or where there is none the module's place; last part of the name)."""
    found = {}
    for module in modules:
        layer = _LAYER.search(module.module)
        place, _, kind = module.module.rpartition(".")
        found[layer.group(1) if layer else place, kind] = module
    return found


def _in_order(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdigit() else (1 << 31, text)


def _rank(module: ModuleSpectrum | None) -> float | None:
    return None if module is None or module.effective_rank is None else float(f"{module.effective_rank:.3g}")


def _module_told(module: ModuleSpectrum | None) -> str:
    if module is None:
        return ""
    rank = UNKNOWN if module.effective_rank is None else f"{module.effective_rank:.2f} of {module.rank}"
    intruders = UNKNOWN if module.intruders is None else f"{module.intruders}"
    return (
        f"{escape(module.module)}<br>effective rank {rank}, first direction {share(module.first_energy)}<br>"
        f"norm {plain(module.norm)}, {share(module.norm_ratio)} of the weight's, intruders {intruders}"
    )


def growth_figure(events: Sequence[Event]) -> dict[str, Any] | None:
    """Medians over all matrices at each step: effective rank above, the update's norm below, over that of the weight
    where the base was read.
    """
    seen = [e for e in events if isinstance(e, SpectrumSeen)]
    ranks = [(e.step, median(r)) for e in seen if (r := [m.effective_rank for m in e.modules if m.effective_rank])]
    ratios = [(e.step, median(r)) for e in seen if (r := [m.norm_ratio for m in e.modules if m.norm_ratio is not None])]
    norms = ratios or [(e.step, median(m.norm for m in e.modules)) for e in seen if e.modules]
    if len(ranks) < 2:
        return None
    drawn = layout(340, "step")
    drawn["xaxis"]["anchor"] = "y2"
    drawn["yaxis"] = AXIS | {"title": {"text": "effective rank"} | SMALL, "domain": UPPER, "rangemode": "tozero"}
    below = "norm over the weight's" if ratios else "norm of the update"
    drawn["yaxis2"] = AXIS | {"title": {"text": below} | SMALL, "domain": LOWER, "rangemode": "tozero"}
    rank = _growth_line(ranks, "effective rank, median", "solid")
    return {"data": [rank, _growth_line(norms, below, "dash") | {"yaxis": "y2"}], "layout": drawn}


def _growth_line(points: Sequence[tuple[int, float]], name: str, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [step for step, _ in points],
        "y": [float(f"{value:.4g}") for _, value in points],
        "line": {"color": "var(--accent)", "width": 2, "dash": dash},
        "marker": {"color": "var(--accent)", "size": 6},
        "hovertemplate": "%{y}",
    }
