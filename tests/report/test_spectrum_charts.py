"""Pictures of spectra: each matrix in its place, medians over time."""

import json
from typing import Any

import pytest

from rankwise.records import ModuleSpectrum, SpectrumSeen
from rankwise.report.spectrum_charts import growth_figure, spectrum_figure
from rankwise.report.watch_rows import MOST_MODULES, watch_view
from tests.builders import TIME
from tests.report.test_forgetting_charts import colours


def module(name: str, rank: float | None = 3.0, **changes: Any) -> ModuleSpectrum:
    content: dict[str, Any] = {
        "module": name,
        "rank": 16,
        "norm": 0.4,
        "norm_ratio": 0.01,
        "effective_rank": rank,
        "first_energy": None if rank is None else 0.5,
        "intruders": 1,
        "condition_a": 1.7,
        "condition_b": 12.0,
    }
    return ModuleSpectrum(**(content | changes))


def seen(step: int, *modules: ModuleSpectrum) -> SpectrumSeen:
    return SpectrumSeen(time=TIME, step=step, modules=modules, seconds=0.3)


def test_each_matrix_stands_in_its_layer_and_kind() -> None:
    names = [f"model.layers.{n}.{kind}" for n in (0, 2, 10) for kind in ("self_attn.q_proj", "mlp.up_proj")]
    figure = spectrum_figure([seen(10, *(module(name, 1.0 + i) for i, name in enumerate(names)))])
    assert figure is not None
    (heat,) = figure["data"]
    assert (heat["x"], heat["y"]) == (["q_proj", "up_proj"], ["0", "2", "10"])
    assert heat["z"] == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


def test_what_is_unknown_is_a_gap() -> None:
    figure = spectrum_figure([seen(10, module("m.0.a"), module("m.1.b", None), module("lm_head", 2.0))])
    assert figure is not None
    (heat,) = figure["data"]
    assert heat["y"] == ["0", "1", ""] and heat["x"] == ["a", "b", "lm_head"]
    assert heat["z"] == [[3.0, None, None], [None, None, None], [None, None, 2.0]]


def test_the_last_spectra_are_drawn_and_zero_updates_are_no_picture() -> None:
    figure = spectrum_figure([seen(5, module("m.0.a", 9.0)), seen(10, module("m.0.a", 4.0))])
    assert figure is not None and figure["data"][0]["z"] == [[4.0]]
    assert spectrum_figure([seen(5, module("m.0.a", None))]) is spectrum_figure([]) is None


def test_growth_is_the_median_over_all_matrices() -> None:
    events = [
        seen(n, *(module(f"m.{i}.a", n * (i + 1.0), norm_ratio=n * 0.001 * (i + 1)) for i in range(3))) for n in (5, 10)
    ]
    figure = growth_figure(events)
    assert figure is not None
    ranks, sizes = figure["data"]
    assert (ranks["x"], ranks["y"]) == ([5, 10], [10.0, 20.0]) and sizes["y"] == pytest.approx([0.01, 0.02])
    assert "weight" in sizes["name"]


def test_growth_without_the_base_is_that_of_the_norm_alone() -> None:
    events = [seen(n, module("m.0.a", norm=float(n), norm_ratio=None)) for n in (5, 10)]
    figure = growth_figure(events)
    assert figure is not None and figure["data"][1]["y"] == [5.0, 10.0] and "weight" not in figure["data"][1]["name"]
    assert growth_figure(events[:1]) is None


def test_names_are_text_and_colours_are_variables() -> None:
    events = [seen(n, module("<b>.0.<i>"), module("m.1.q", norm_ratio=None, intruders=None)) for n in (5, 10)]
    for figure in (spectrum_figure(events), growth_figure(events)):
        assert figure is not None and "<b>" not in json.dumps(figure, allow_nan=False)
        assert "<i>" not in json.dumps(figure)
        found = colours(figure)
        assert len(found) >= 6 and {c for c in found if not c.startswith("var(--")} == set()


def test_the_table_shows_the_largest_updates() -> None:
    modules = [module(f"m.{n}.a", norm_ratio=n / 1000) for n in range(50)]
    view = watch_view([seen(10, *modules)])
    assert view.matrices == 50 and len(view.modules) == MOST_MODULES
    assert [m.module for m in view.modules[:2]] == ["m.49.a", "m.48.a"]
