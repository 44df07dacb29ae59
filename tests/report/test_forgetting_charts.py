"""Pictures of forgetting: every slice by itself, with its intervals and levels as the events say."""

import json
from typing import Any

import pytest

from rankwise.records import Event, Slice, Threshold, Watched
from rankwise.report.forgetting_charts import LEVELS, POINTS, forgetting_figure, frontier_figure
from rankwise.report.watch_rows import watch_figures
from tests.builders import TIME, validation


def part(name: str, difference: float, *, share: bool = False, level: str = "green") -> Slice:
    half = 0.05 if share else 0.01
    return Slice(
        name=name,
        metric="choice" if share else "general_loss",
        unit="share" if share else "nats per token",
        items=40,
        baseline=0.5,
        value=0.5 + difference,
        difference=difference,
        interval=(difference - half, difference + half),
        level=level,  # type: ignore[arg-type]
    )


def looked(step: int, *slices: Slice) -> Watched:
    return Watched(time=TIME, step=step, slices=slices, level="green", kl=None, seconds=1.0)


def run_of(*steps: int) -> list[Event]:
    levels = ["green", "amber", "red", "unknown"]
    events: list[Event] = []
    for number, step in enumerate(steps):
        text = part("text", 0.03 * number, level=levels[number % 4])
        events += [validation(step, 2.0 - 0.1 * number), looked(step, text, part("arc", -0.02 * number, share=True))]
    return events


def lines(figure: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    assert figure is not None
    return {trace["name"]: trace for trace in figure["data"] if "name" in trace}


def colours(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [c for k, v in node.items() if "color" in k for c in ([v] if isinstance(v, str) else _strings(v))]
        return own + [c for v in node.values() for c in colours(v)]
    return [c for v in node for c in colours(v)] if isinstance(node, list) else []


def _strings(node: object) -> list[str]:
    if isinstance(node, list):
        return [s for v in node for s in _strings(v)]
    return [node] if isinstance(node, str) else []


def test_slices_are_kept_apart_in_their_own_units() -> None:
    drawn = lines(forgetting_figure(run_of(0, 10, 20)))
    assert drawn["text"]["x"] == drawn["arc"]["x"] == [0, 10, 20]
    assert drawn["text"]["y"] == [0.0, 0.03, 0.06] and drawn["arc"]["y"] == pytest.approx([0.0, -2.0, -4.0])
    assert "yaxis" not in drawn["text"] and drawn["arc"]["yaxis"] == "y2"


def test_bands_are_the_intervals() -> None:
    figure = forgetting_figure([looked(0, part("text", 0.0)), looked(10, part("text", 0.03))])
    assert figure is not None
    band = figure["data"][0]
    assert band["x"] == [0, 10, 10, 0] and band["y"] == pytest.approx([0.01, 0.04, 0.02, -0.01])


def test_levels_are_told_by_shape_and_colour() -> None:
    marker = lines(forgetting_figure(run_of(0, 10, 20, 30)))["text"]["marker"]
    assert list(zip(marker["color"], marker["symbol"], strict=True)) == list(LEVELS.values())
    assert len({symbol for _, symbol in LEVELS.values()}) == len(LEVELS)


def limit(name: str, unit: str, amber: float | None, red: float | None) -> Threshold:
    return Threshold(slice=name, unit=unit, baseline=0.5, amber=amber, red=red, source="by hand")


def test_thresholds_are_drawn_where_the_slices_of_a_unit_share_them() -> None:
    nats = [limit(name, "nats per token", 0.03, 0.1) for name in ("text", "rows")]
    figure = forgetting_figure(run_of(0, 10), [*nats, limit("arc", "share", None, -0.15)])
    assert figure is not None
    lines = [(s["yref"], s["y0"], s["line"]["color"]) for s in figure["layout"]["shapes"] if "dash" in s["line"]]
    assert lines == [("y", 0.03, "var(--warning)"), ("y", 0.1, "var(--fault)"), ("y2", -15.0, "var(--fault)")]
    differ = forgetting_figure(run_of(0, 10), [*nats, limit("other", "nats per token", 0.05, 0.1)])
    assert differ is not None
    assert [s["y0"] for s in differ["layout"]["shapes"] if "dash" in s["line"]] == [0.1]


def test_one_unit_is_one_panel() -> None:
    figure = forgetting_figure([looked(10, part("arc", -0.1, share=True))])
    assert figure is not None and "yaxis2" not in figure["layout"] and "points" in str(figure["layout"]["yaxis"])


def test_the_frontier_pairs_what_was_measured_at_the_same_step() -> None:
    events = [*run_of(0, 10, 20), looked(25, part("text", 0.5))]
    drawn = lines(frontier_figure(events))
    assert list(drawn) == ["text"], "shares are no loss"
    assert drawn["text"]["x"] == pytest.approx([2.0, 1.9, 1.8]) and drawn["text"]["y"] == [0.0, 0.03, 0.06]
    assert drawn["text"]["error_y"]["array"] == pytest.approx([0.01] * 3)


def test_one_point_is_no_frontier_and_nothing_watched_is_no_picture() -> None:
    assert frontier_figure(run_of(10)) is None and forgetting_figure([validation(5, 1.0)]) is None
    assert watch_figures([validation(5, 1.0)]) == {}


def test_names_are_text_and_colours_are_variables() -> None:
    events = [looked(n, part("<b>x</b>", 0.1)) for n in (5, 10)]
    for figure in (forgetting_figure(events), frontier_figure([*events, *run_of(5, 10)])):
        assert figure is not None and "<b>" not in json.dumps(figure, allow_nan=False)
        found = colours(figure)
        assert len(found) >= 10 and {c for c in found if not c.startswith("var(--")} == set()


def test_long_runs_are_thinned() -> None:
    drawn = lines(forgetting_figure([looked(n, part("text", 0.1)) for n in range(2000)]))
    assert len(drawn["text"]["x"]) == POINTS and drawn["text"]["x"][-1] == 1999
