"""Pictures as data: what is drawn is what the records say."""

import json

import pytest

from rankwise.records import Step, Validation
from rankwise.report import charts
from tests.report.conftest import STEPS, build_actual, build_comparison, build_estimate, build_events, build_memory


def test_curves_hold_every_step_and_start_with_the_base() -> None:
    events = build_events()
    figure = charts.training_curves(events)
    assert figure is not None
    loss, held_out, rate = figure["data"]
    assert loss["x"] == list(range(1, STEPS + 1)) == rate["x"]
    assert loss["y"] == [e.loss for e in events if isinstance(e, Step)]
    assert held_out["x"] == [0, 5, 10, 15, 20, 25, 30]
    assert held_out["y"][0] == 2.412
    assert [note["text"] for note in figure["layout"]["annotations"]] == ["base"]


def test_curves_need_something_to_draw() -> None:
    base_only = [e for e in build_events(1) if isinstance(e, Validation)]
    assert len(base_only) == 1
    assert charts.training_curves([]) is None
    assert charts.training_curves(base_only) is None


def test_colours_are_names_of_variables_only() -> None:
    def colours(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [v for k, v in node.items() if isinstance(v, str) and "color" in k]
            return own + [c for v in node.values() for c in colours(v)]
        return [c for v in node for c in colours(v)] if isinstance(node, list) else []

    found = colours(charts.training_curves(build_events()))
    assert len(found) >= 12
    assert {c for c in found if not c.startswith("var(--")} == set()


def test_long_runs_are_thinned_to_their_ends() -> None:
    kept = charts.thin(range(100_000))
    assert (len(kept), kept[0], kept[-1]) == (charts.POINTS, 0, 99_999)
    assert kept == sorted(set(kept))
    assert charts.thin([1, 2, 3]) == [1, 2, 3]


def test_the_stack_adds_up_to_the_peak() -> None:
    estimate = build_estimate()
    bar = charts.memory_bar(estimate)
    assert [s.name for s in bar.segments] == [*charts.BUCKETS, "process"]
    assert sum(s.number for s in bar.segments) == estimate.memory.peak_device
    assert sum(s.share for s in bar.segments) == pytest.approx(100)
    assert bar.device.low < (bar.device.dot or 0) < bar.device.high < charts.capacity_mark(estimate) == 100


def test_a_peak_over_capacity_stays_in_the_picture() -> None:
    estimate = build_estimate(memory=build_memory(capacity=1_000_000_000, fits=False))
    assert charts.memory_bar(estimate).device.high == 100
    assert charts.capacity_mark(estimate) == pytest.approx(100 / 2.3)


def test_parts_that_exceed_the_peak_leave_nothing_over() -> None:
    estimate = build_estimate(memory=build_memory(peak_device=1_000))
    bar = charts.memory_bar(estimate)
    assert len(bar.segments) == 6
    assert sum(s.share for s in bar.segments) == pytest.approx(100)


@pytest.mark.parametrize("metric", ["format", "heldout_loss"])
def test_scores_lie_inside_their_scale(metric: str) -> None:
    tracks = charts.score_tracks(build_comparison(metric, 0.02, 0.99, 0.9, 1.0))
    positions = [p for t in tracks for p in (t.low, t.high, t.dot) if p is not None]
    assert len(positions) == 6
    assert all(0 <= p <= 100 for p in positions)
    assert tracks[0].dot < tracks[1].dot  # type: ignore[operator]


def test_a_prediction_that_came_true_is_in_the_middle() -> None:
    track = charts.ratio_track(build_actual("x", "s", 10.0, (5.0, 20.0), 10.0), 2.0)
    assert track == charts.Track(0.0, 100.0, 50.0)


@pytest.mark.parametrize(
    ("predicted", "interval", "actual"),
    [(None, None, None), (0.0, (0.0, 1.0), 1.0), (10.0, None, 9.0), (-1.0, (-2.0, 0.0), 1.0)],
)
def test_what_has_no_ratio_is_not_drawn(
    predicted: float | None, interval: tuple[float, float] | None, actual: float | None
) -> None:
    unscaled = build_actual("x", "s", predicted, interval, actual)
    assert charts.ratio_track(unscaled, 2.0) is None
    assert charts.widest_ratio([unscaled]) == 1.25


def test_the_scale_is_as_wide_as_the_worst_miss() -> None:
    close, far = (build_actual("x", "s", 10.0, (9.0, 11.0), actual) for actual in (10.5, 400.0))
    assert charts.widest_ratio([close]) == 1.25
    assert charts.widest_ratio([close, far]) == 10.0
    track = charts.ratio_track(far, 10.0)
    assert track is not None
    assert track.dot == 100


def test_an_interval_that_starts_at_nothing_can_be_drawn() -> None:
    actual = build_actual("x", "s", 10.0, (0.0, 20.0), 0.0)
    assert charts.ratio_track(actual, charts.widest_ratio([actual])) == charts.Track(0.0, 100.0, 0.0)


def test_the_figure_is_plain_json() -> None:
    assert len(json.dumps(charts.training_curves(build_events()), allow_nan=False)) > 1_000
