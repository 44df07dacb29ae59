"""What the terminal says of a comparison, before it runs and after."""

import pytest

from rankwise.report import compare_words as say
from rankwise.report.compared import contrasts, metrics
from tests import builders
from tests.report.bakeoffs import DECISION, build_bakeoff, build_outcome, build_trials


def test_what_is_planned_is_one_table() -> None:
    heads, rows = say.planned_table(build_bakeoff())
    assert all(len(row) == len(heads) for row in rows)
    found = {row[0]: dict(zip(heads, row, strict=True)) for row in rows}
    assert list(found) == ["base", "fewshot", "lora:r=8", "full"]
    assert found["base"]["training"] == "-" and found["base"]["answers"] == "24 s"
    told = found["lora:r=8"]
    assert (told["steps a run"], told["sweep"], told["FLOPs in all"]) == ("36", "3 rates of 8 steps", "106 TFLOP")
    assert (told["training"], told["in all (95 %)"]) == ("2 min 14 s", "2.4 to 3.7 min")
    assert (told["peak memory"], told["stored"]) == ("1.4 GB", "4.9 MB")
    said = say.planned_line(build_bakeoff())
    assert said == "4 arms, 2 seeds, 10 training runs; budget 11 min, sweep, seeds and answers included."


def test_a_rate_that_is_not_swept_is_named() -> None:
    allowance = build_bakeoff().allowances[2]
    once = allowance.model_copy(update={"learning_rates": (2e-4,), "sweep_steps": 0})
    assert say.sweep_text(once) == "none: 0.0002"
    two = build_bakeoff(allowances=(build_bakeoff().allowances[3], once), seeds=(0, 1, 2))
    assert "2 arms, 3 seeds, 9 training runs" in say.planned_line(two)  # three of one sweep, and six


def test_what_can_be_told_is_said_before() -> None:
    more = build_bakeoff().allowances[3].model_copy(update={"odd_steps": 1})
    assert say.steps_text(more) == "25, one more in 1"
    lines = [say.detectable_line(d) for d in build_bakeoff().detectable]
    assert (
        lines[1]
        == "Facts: a difference of 22 points or more can be told with 48 probes (paired, worst case of a share)"
    )
    assert "0.140 nats or more" in lines[2]


def test_scores_stand_metric_by_metric() -> None:
    heads, rows = say.scores_table(build_bakeoff(), build_trials(), build_outcome())
    assert heads == ["side", "base", "fewshot", "lora:r=8", "full"] and len(rows) == 5
    assert rows[0][0] == "style: Format\nhigher is better, 64 probes" and rows[0][3] == "95 %\n91 to 99.5"
    assert rows[2][0].startswith("task: Held-out loss\nlower") and rows[2][4] == "0.595 nats\n0.571 to 0.618"
    few = build_outcome(results=build_outcome().results[:1])
    assert say.scores_table(build_bakeoff(), build_trials(), few)[1][0][2:] == ["unknown"] * 3


def test_costs_mark_the_edge_and_what_was_not_foreseen() -> None:
    heads, rows = say.costs_table(build_bakeoff(), build_trials(), build_outcome())
    found = {row[0]: dict(zip(heads, row, strict=True)) for row in rows}
    assert found["base"]["rate"] == found["base"]["FLOPs a run"] == "-"
    assert found["lora:r=8"]["rate"] == "0.001" and found["full"]["rate"] == "0.0001 !"
    assert found["lora:r=8"]["FLOPs a run"] == "39.6 TFLOP" and found["full"]["stored"] == "269 MB"
    assert found["full"]["in all, and as predicted"] == "4 min 31 s !\n2.4 to 3.8 min"
    assert "!" not in found["lora:r=8"]["in all, and as predicted"]


def test_contrasts_of_the_metrics_that_speak_for_a_side() -> None:
    heads, rows = say.contrasts_table(build_bakeoff(), build_trials(), build_outcome())
    assert {row[0] for row in rows} == {"Format", "Facts", "Held-out loss", "General loss"} and len(rows) == 24
    found = {(row[0], row[1]): dict(zip(heads, row, strict=True)) for row in rows}
    sure, unsure = found["Format", "full - base"], found["Facts", "full - base"]
    assert (sure["the first is"], sure["more probes"], sure["difference"]) == ("better", "", "+94 points")
    assert (unsure["the first is"], unsure["more probes"]) == ("cannot tell", "about 1,100")
    assert unsure["95 %, all pairs"] == "-12 to +8"
    nobody_knows = builders.outcome().contrasts[0].model_copy(update={"answer": "cannot tell"})
    assert say.more_text(nobody_knows) == "unknown"


def test_the_arm_that_was_named_later_comes_first() -> None:
    known = {(c.first, c.second): c for c in build_outcome().contrasts if c.metric == "format"}
    arms = ("full", "lora:r=8", "fewshot", "base")
    backwards = build_bakeoff(allowances=tuple(reversed(build_bakeoff().allowances)))
    turned = contrasts(backwards, build_outcome(), "format")
    assert [(c.second, c.first) for c in turned] == list(known)
    for c in turned:
        was = known[c.second, c.first]
        assert (c.difference, c.adjusted) == (-was.difference, (-was.adjusted[1], -was.adjusted[0]))
        assert {c.answer, was.answer} in ({"better", "worse"}, {"cannot tell"})
    assert {c.first for c in contrasts(build_bakeoff(), build_outcome(), "format")} == {*arms[:3]}


@pytest.mark.parametrize(
    ("value", "said"), [(0.4, "0.4"), (0.0012, "0.0012"), (1e-9, "below 0.001"), (0.0, "below 0.001")]
)
def test_a_p_value(value: float, said: str) -> None:
    assert say.p_text(value) == said


def test_the_verdict_is_said_once() -> None:
    lines = say.verdict_lines(build_outcome())
    assert lines[0] == DECISION and [line.split(":")[0] for line in lines[1:]] == [
        "Style",
        "Facts",
        "Task",
        "Forgetting",
    ]


def test_metrics_stand_by_side_and_the_judged_one_first() -> None:
    found = metrics(build_trials(), build_outcome())
    assert [m.name for m in found] == ["format", "facts", "heldout_loss", "exact_match", "general_loss"]
    assert [m.primary for m in found] == [True, True, True, False, True]


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (8.0, "minutes", "8 min"),
        (0.5, "minutes", "30 s"),
        (1.2e14, "flops", "120 TFLOP"),
        (3.5, "usd", "3.50 USD"),
        (None, "usd", "unknown"),
    ],
)
def test_a_budget_in_its_unit(value: float | None, unit: str, said: str) -> None:
    assert say.budget_text(value, unit) == said  # type: ignore[arg-type]
