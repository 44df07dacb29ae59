"""Quality against cost: the front is one, limits are the job's, and every option is drawn or named."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.records import QualityPrior
from rankwise.report.pareto import (
    Panel,
    Point,
    can_run,
    front,
    not_drawn,
    not_drawn_sentence,
    panels,
    pareto_figures,
)
from rankwise.report.price_table import candidate_rows
from tests.report.conftest import build_plan
from tests.report.plans import OPTIONS, build_13b, build_none, estimate


def panel(name: str, **changes: Any) -> Panel:
    return next(p for p in panels(build_13b(**changes)) if p.id == f"pareto-{name}")


def point(x: float, quality: float, runs: bool) -> Point:
    row = candidate_rows(build_plan())[0]
    return Point(row, x, QualityPrior(value=quality, interval=(quality, quality), source=""), runs)


POINTS = st.lists(
    st.tuples(st.integers(1, 20), st.integers(1, 20), st.booleans()).map(lambda t: point(float(t[0]), t[1] / 20, t[2])),
    max_size=12,
)


@given(POINTS)
def test_the_front_is_what_nothing_beats(points: list[Point]) -> None:
    kept = front(points)
    able = [p for p in points if p.runs]
    for p in kept:
        beaten = [q for q in able if q.x <= p.x and q.prior.value >= p.prior.value and (q.x, q.prior) != (p.x, p.prior)]
        assert not beaten
    for p in able:
        assert any(q.x <= p.x and q.prior.value >= p.prior.value for q in kept)
    assert [p.x for p in kept] == sorted({p.x for p in kept})
    assert all(p.runs for p in kept)


def test_three_panels_with_the_limits_of_the_job() -> None:
    found = panels(build_13b())
    assert [(p.id, p.unit, p.limit) for p in found] == [
        ("pareto-usd", "USD", 110.0),  # 550 USD for five variants, one run each
        ("pareto-time", "h", None),
        ("pareto-memory", "GB", 80.0),
    ]
    assert found[0].limit_name == "budget of each"


def test_what_has_no_price_has_no_panel_of_prices() -> None:
    plan = build_13b(candidates=tuple(estimate(o, price=None) for o in OPTIONS))
    assert list(pareto_figures(plan)) == ["pareto-time", "pareto-memory"]
    assert pareto_figures(build_none()) == {}, "nothing is known of quality"


def test_every_option_with_a_prior_is_drawn_or_named() -> None:
    plan = build_13b()
    drawn = {p.id for p in panels(plan)[0].points}
    named = {row.estimate.id for row in not_drawn(plan)}
    assert named == {"ia3", "prompt-20"}
    assert drawn | named == set(plan.priors)
    assert not_drawn_sentence(plan) == "Not drawn, far below: ia3 (75 %, discouraged), prompt-20 (55 %, discouraged)."
    assert not_drawn_sentence(build_plan()) == ""


def test_the_call_is_drawn_however_low_it_is() -> None:
    call = build_13b().verdict.model_copy(update={"method": "prompt", "candidate": "prompt-20"})
    plan = build_13b(verdict=call)
    assert "prompt-20" in {p.id for p in panels(plan)[0].points}


def test_shapes_tell_what_colours_tell() -> None:
    data = pareto_figures(build_13b())["pareto-usd"]["data"]
    kinds = {trace["name"]: trace["marker"]["symbol"] for trace in data}
    assert kinds == {
        "front": "circle-open",
        "does not fit": "x-thin",
        "excluded": "circle-open",
        "possible": "circle",
        "runner-up": "diamond",
        "the call": "star",
    }
    sizes = {trace["name"]: trace["marker"]["size"] for trace in data}
    assert sizes["front"] > sizes["excluded"], "a ring around a mark, not a mark"
    counts = {trace["name"]: len(trace["x"]) for trace in data}
    assert (counts["does not fit"], counts["excluded"], counts["the call"]) == (3, 5, 1)


def test_an_excluded_option_says_its_rule_to_the_pointer() -> None:
    data = {trace["name"]: trace for trace in pareto_figures(build_13b())["pareto-memory"]["data"]}
    told = data["excluded"]["customdata"]
    assert any("qlora-r16</b> (excluded)<br>17.3 GB, quality 95 % (88 to 100 %)" in t for t in told)
    assert any("excluded by quantisation_needed: LoRA needs 38.1 GB of 80.0 GB" in t for t in told)
    assert all("excluded by memory_fits" in t for t in data["does not fit"]["customdata"])


def test_error_bars_are_the_intervals() -> None:
    call = next(t for t in pareto_figures(build_13b())["pareto-usd"]["data"] if t["name"] == "the call")
    assert call["y"] == [97.0]
    assert (call["error_y"]["arrayminus"], call["error_y"]["array"]) == ([5.0], [4.0])


def test_text_of_a_plan_is_no_markup_of_the_chart() -> None:
    plan = build_13b()
    evil = "<a href='javascript:alert(1)'>x</a>"
    rejected = tuple(r.model_copy(update={"number": evil, "rule": evil}) for r in plan.rejected)
    text = json.dumps(pareto_figures(build_13b(rejected=rejected)))
    assert "&lt;a href" in text
    assert "<a " not in text


@pytest.mark.parametrize(
    ("budget", "able"),
    [({"usd": 400.0}, True), ({"usd": 300.0}, False), ({"hours": 15.0}, True), ({"hours": 14.0}, False)],
)
def test_a_budget_bounds_what_can_run(budget: dict[str, float], able: bool) -> None:
    plan = build_13b()
    job = plan.job.model_copy(update={"budget": type(plan.job.budget)(**budget)})
    changed = build_13b(job=job)
    assert can_run(changed, changed.estimate("lora-r16")) is able


def test_unknown_memory_cannot_run_and_a_full_disk_neither() -> None:
    plan = build_13b()
    chosen = plan.estimate("lora-r16")
    unknown = chosen.model_copy(update={"memory": chosen.memory.model_copy(update={"fits": None})})
    assert not can_run(plan, unknown)
    full = plan.facts.device.model_copy(update={"disk_free_bytes": 1_000})
    assert not can_run(build_13b(facts=plan.facts.model_copy(update={"device": full})), chosen)


def test_scales_hold_every_point() -> None:
    for name, figure in pareto_figures(build_13b()).items():
        axis, low_high = figure["layout"]["xaxis"], figure["layout"]["yaxis"]["range"]
        ends = [10**e for e in axis["range"]] if axis.get("type") == "log" else axis["range"]
        for trace in figure["data"]:
            assert all(ends[0] <= x <= ends[1] for x in trace["x"]), name
            assert all(low_high[0] <= y <= low_high[1] for y in trace["y"]), name
    assert pareto_figures(build_13b())["pareto-memory"]["layout"]["xaxis"]["type"] == "log"
