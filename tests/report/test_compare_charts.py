"""The pictures of a comparison: the front, an axis that holds 0, means of seeds, the sweep."""

from typing import Any

import pytest

from rankwise.records import CurvePoint
from rankwise.report.compare_charts import curve_figures, mean_curve, sweep_figure, tried_rates
from rankwise.report.compare_looks import looks
from rankwise.report.compare_pareto import Point, front, pareto_figures, pareto_points
from rankwise.report.compared import metrics
from rankwise.report.cost_axis import cost_axis, ticks
from tests.report.bakeoffs import build_arm, build_bakeoff, build_outcome, build_trials


def point(cost: float, value: float) -> Point:
    return Point(looks(build_bakeoff())["base"], cost, value, (value, value))


def drawn(metric: str, quantity: str) -> dict[str, Any]:
    bakeoff, trials, outcome = build_bakeoff(), build_trials(), build_outcome()
    found = next(m for m in metrics(trials, outcome) if m.name == metric)
    return pareto_figures(bakeoff, trials, outcome, found, 0)[f"pareto-0-{quantity}"]


def test_the_front_is_what_no_cheaper_one_equals() -> None:
    points = [point(0, 0.1), point(1, 0.5), point(2, 0.5), point(3, 0.4), point(4, 0.9), point(4, 0.8)]
    assert [(p.cost, p.value) for p in front(points, True)] == [(0, 0.1), (1, 0.5), (4, 0.9)]
    assert [(p.cost, p.value) for p in front(points, False)] == [(0, 0.1)]


def test_better_is_up_and_the_front_is_drawn_through_its_arms() -> None:
    higher, lower = drawn("format", "flops"), drawn("heldout_loss", "flops")
    assert higher["layout"]["yaxis"]["range"] == sorted(higher["layout"]["yaxis"]["range"])
    assert lower["layout"]["yaxis"]["range"] == sorted(lower["layout"]["yaxis"]["range"], reverse=True)
    line, *marks = lower["data"]
    means = {r.arm: r.means["heldout_loss"] for r in build_outcome().results}
    assert line["y"] == [float(f"{means[arm]:.5g}") for arm in ("fewshot", "lora:r=8", "full")]
    assert [m["name"] for m in marks] == ["base", "fewshot", "lora:r=8", "full"]
    assert [m["marker"]["symbol"].endswith("-open") for m in marks] == [True, True, False, False]


def test_error_bars_end_where_the_intervals_end() -> None:
    spans = {r.arm: r.intervals["format"] for r in build_outcome().results}
    for mark in drawn("format", "peak-memory")["data"][1:]:
        low, high = spans[mark["name"]]
        bars = mark["error_y"]
        assert mark["y"][0] - bars["arrayminus"][0] == pytest.approx(100 * low, abs=0.01)
        assert mark["y"][0] + bars["array"][0] == pytest.approx(100 * high, abs=0.01)


def test_what_costs_nothing_stands_beside_a_logarithmic_scale() -> None:
    figure = drawn("format", "stored-bytes")
    axis = figure["layout"]["xaxis"]
    assert axis["ticktext"][0] == "0" and "MB" in axis["title"]["text"]
    at = {m["name"]: m["x"][0] for m in figure["data"][1:]}
    assert at["base"] == axis["tickvals"][0] < figure["layout"]["shapes"][0]["x0"] < at["lora:r=8"] < at["full"]
    assert axis["range"][0] < at["base"] and at["full"] < axis["range"][1]


@pytest.mark.parametrize(
    ("values", "logarithmic", "zero"),
    [
        ([1, 2, 5], False, False),
        ([0, 2, 5], False, False),
        ([1, 20], True, False),
        ([0, 1, 20], True, True),
        ([0, 0], False, False),
    ],
)
def test_the_scale_of_a_cost(values: list[float], logarithmic: bool, zero: bool) -> None:
    axis = cost_axis(values)
    assert (axis.logarithmic, axis.zero is not None) == (logarithmic, zero)
    low, high = axis.axis["range"]
    assert all(low < axis.at(v) < high for v in values)


@pytest.mark.parametrize(("low", "high"), [(1, 9), (3, 400), (1e-5, 3e-3), (1, 1e12)])
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 6 and all(low <= t <= high for t in found) and found == sorted(found)


def test_a_cost_that_nobody_knows_is_not_drawn() -> None:
    bakeoff, outcome = build_bakeoff(), build_outcome()
    trials = [t.model_copy(update={"peak_memory": None}) if t.arm == "full" else t for t in build_trials()]
    metric = metrics(trials, outcome)[0]
    assert len(pareto_points(bakeoff, trials, outcome, metric, "peak_memory")) == 3
    nobody = [t.model_copy(update={"peak_memory": None}) for t in trials]
    assert "pareto-0-peak-memory" not in pareto_figures(bakeoff, nobody, outcome, metric, 0)


def test_curves_are_thin_for_each_seed_and_thick_for_their_mean() -> None:
    figures = curve_figures(build_bakeoff(), build_trials())
    assert list(figures) == ["curves-flops", "curves-seconds"]
    widths = [(t["name"], t["line"]["width"]) for t in figures["curves-flops"]["data"]]
    assert widths == [(arm, width) for arm in ("lora:r=8", "full") for width in (1.0, 1.0, 3.0)]
    first, second, mean = figures["curves-seconds"]["data"][:3]
    assert mean["y"][-1] == pytest.approx((first["y"][-1] + second["y"][-1]) / 2, rel=1e-3)
    assert curve_figures(build_bakeoff(), [t for t in build_trials() if not t.curve]) == {}


def test_a_mean_is_taken_where_all_seeds_were_measured() -> None:
    def curve(*losses: float) -> list[CurvePoint]:
        return [CurvePoint(step=n, flops=n, seconds=2.0 * n, loss=loss) for n, loss in enumerate(losses)]

    mean = mean_curve([curve(3, 1, 1), curve(3, 2)])
    assert [(p.step, p.loss) for p in mean] == [(0, 3), (1, 1.5)]


def test_the_sweep_rings_what_was_chosen() -> None:
    bakeoff = build_bakeoff()
    tried = tried_rates(bakeoff, build_trials(), build_outcome())
    assert [(t.arm, t.rate) for t in tried if t.mark] == [("lora:r=8", 1e-3), ("full", 1e-4)]
    figure = sweep_figure(bakeoff, tried)
    assert figure is not None
    rings = [t for t in figure["data"] if t.get("hoverinfo") == "skip"]
    assert [(r["x"], r["marker"]["color"]) for r in rings] == [([1e-3], "var(--ink)"), ([1e-4], "var(--fault)")]
    assert sweep_figure(bakeoff, [t for t in tried if t.loss is None]) is None


def test_no_two_arms_look_alike() -> None:
    allowance = build_bakeoff().allowances[2]
    many = [
        allowance.model_copy(update={"arm": build_arm("lora").model_copy(update={"name": f"{n}"})}) for n in range(40)
    ]
    found = looks(build_bakeoff(allowances=tuple(many)))
    assert len({(look.color, look.symbol) for look in found.values()}) == 40
