"""The page of a comparison: its order, its numbers, its pictures, its states, and safe whatever a model says."""

import json
import re
from typing import Any

import pytest

from rankwise.records import Bakeoff, Outcome, Said, Trial
from rankwise.report.compare_page import compare_page
from tests import builders
from tests.report.bakeoffs import (
    DECISION,
    METRICS,
    build_bakeoff,
    build_outcome,
    build_trial,
    build_trials,
    whole_comparison,
)
from tests.report.test_page import EVIL, Page, poison, without_plotly

KEPT = frozenset({"unit", "metric", "side", "kind", "answer", "purpose", "dtype", "autocast", "on_long", "job"})


def text_of(html: str) -> str:
    return " ".join(Page(html).text.replace("\u00a0", " ").split())


def figure(html: str, name: str) -> dict[str, Any]:
    block = re.search(rf'id="{name}">(.*?)</script>', html, re.DOTALL)
    assert block is not None
    return dict(json.loads(block.group(1)))


def test_the_verdict_comes_first_and_every_section_in_its_order() -> None:
    html = whole_comparison()
    text, outcome = text_of(html), build_outcome()
    heads = [v for tag, name, v in Page(html).attributes if tag == "h2" and name == "id"]
    order = ["results", "pareto", "curves", "contrasts", "detectable", "sweep", "answers", "budget", "notes"]
    assert heads == [*order, "computed", "terms"]
    spoken = [c.text for c in outcome.conclusions if c.metric != "exact_match"]
    named = [
        text.replace("heldout_loss (", "Held-out loss (").replace("general_loss (", "General loss (") for text in spoken
    ]
    places = [text.index(sentence) for sentence in (*DECISION.split(". "), *(s[1:] for s in named))]
    assert places == sorted(places) and places[-1] < text.index("In small print below a score")
    assert all(text.count(c.text.partition(" ")[2]) == 1 for c in outcome.conclusions), (
        "what the verdict repeats is said once"
    )
    assert all(outcome.verdict.count(sentence) == 1 for sentence in spoken)


def test_a_verdict_in_other_words_is_shown_whole() -> None:
    verdict = "Take the base. Nothing is shown to beat it."
    html = whole_comparison(outcome=build_outcome(verdict=verdict))
    assert "<h1>Take the base.</h1>" in html and "Nothing is shown to beat it." in text_of(html)


def test_every_arm_stands_with_its_scores_and_its_costs_beside_the_prediction() -> None:
    text = text_of(whole_comparison())
    for arm in build_outcome().results:
        assert f"{arm.arm} " in text
    assert "▲lora:r=80.001 of 3 tried95 % 91 to 99.540 % 27 to 52" in text
    assert "expected 0.720 nats" in text and "by an earlier comparison on the same base" in text
    assert "39.6 TFLOP predicted 39.6 TFLOP as predicted52 s predicted 50 s 4 % above the prediction" in text
    assert "269 MB predicted 269 MB" in text and "! at the edge of 3 tried" in text


def test_what_lies_outside_of_its_interval_is_marked_and_nothing_else() -> None:
    html = whole_comparison()
    assert text_of(html).count("! outside") == 2  # full, in both tables that tell its time
    assert "4 min 31 s ! outside predicted 3 min 95 %: 2.4 to 3.8 min" in text_of(html)
    wide = [a.model_copy(update={"interval": (0.0, 1e4)}) for a in build_bakeoff().allowances]
    assert "outside predicted" not in text_of(whole_comparison(bakeoff=build_bakeoff(allowances=tuple(wide))))


def test_arms_that_no_other_beats_are_bold() -> None:
    html = whole_comparison()
    bold = re.findall(r'<td class="best">([^<]+)<', html)
    best = {c.metric: len(c.best) for c in build_outcome().conclusions}
    assert len(bold) == sum(best.values()) == 2 + 4 + 1 + 2 + 3


def test_quality_is_chosen_and_drawn_against_each_cost() -> None:
    html = whole_comparison()
    page = Page(html)
    drawn = [name for name in page.values("data-chart") if name.startswith("pareto")]
    assert len(drawn) == 4 * len(METRICS) and drawn[:2] == ["pareto-0-flops", "pareto-0-train-seconds"]
    radios = [v for tag, name, v in page.attributes if tag == "input" and name == "id"]
    assert radios == [f"show-{n}" for n in range(len(METRICS))]
    assert page.values("checked") == [""], "one of them is shown at first"
    assert all(f":has(#{radio}:checked)) .{radio}" in html for radio in radios)
    assert [v for v in page.values("class") if v.startswith("choice show-")] == [f"choice {r}" for r in radios]


def test_contrasts_say_how_many_more_probes_would_tell() -> None:
    text = text_of(whole_comparison())
    contrasts = build_outcome().contrasts
    assert text.count("? cannot tell") == sum(c.answer == "cannot tell" for c in contrasts) > 5
    assert text.count("✓ better") == sum(c.answer == "better" for c in contrasts) > 5
    assert text.count("✗ worse") == sum(c.answer == "worse" for c in contrasts) > 0
    assert "full − base −2 points −12 to +80.4? cannot tellabout 1,100" in text
    page = Page(whole_comparison())
    assert len([v for v in page.values("class") if v.startswith("forest ")]) == len(contrasts)


def test_the_sweep_shows_what_was_chosen_and_what_diverged() -> None:
    html = whole_comparison()
    text = text_of(html)
    assert "0.00180.700 nats✓ chosen" in text and "0.0038diverged" in text
    assert "0.000150.600 nats! chosen, at the edge" in text
    labels = [a["text"] for a in figure(html, "sweep-data")["layout"]["annotations"]]
    assert labels == ["▲ diverged"]


def test_answers_are_those_that_split_the_arms() -> None:
    html = whole_comparison()
    text = text_of(html)
    assert html.count('class="answer"') == 6 and html.count('class="reply"') == 24
    assert "Metoprolol &lt;5 mg&gt;" in html and "<5 mg>" in text
    shown = text[text.index("Where the arms differ") : text.index("Settings of each trained arm")]
    assert shown.count("not as expected") == 5 + 7


def test_answers_that_differ_are_shown_where_all_are_wrong_and_not_where_all_are_right() -> None:
    def asked(ok: bool | None) -> str:
        said = Said(prompt="p", expected="e", answer="", ok=ok, side="task")
        finals = [t for t in build_trials() if t.purpose == "final"]
        trials = [t.model_copy(update={"answers": (said.model_copy(update={"answer": t.arm}),)}) for t in finals]
        return whole_comparison(trials=trials)

    assert [html.count('class="reply"') for html in map(asked, (False, None, True))] == [4, 4, 0]


def test_a_note_of_many_runs_stands_once() -> None:
    trials = [t.model_copy(update={"notes": ("16 of 48 rows",)}) for t in build_trials() if t.arm == "base"]
    text = text_of(whole_comparison(trials=trials))
    assert text.count("16 of 48 rows") == 1 and "base, seed 0; base, seed 1: 16 of 48 rows" in text


def test_an_untrained_arm_trains_in_no_time() -> None:
    planned = tuple(a.model_copy(update={"training_seconds": None}) for a in build_bakeoff().allowances)
    text = text_of(whole_comparison(bakeoff=build_bakeoff(allowances=planned)))
    assert text.count("43 s predicted 24 s") == 2 and text.count("3 min 9 s predicted unknown") == 2


def test_the_budget_says_what_was_planned_and_what_was_spent() -> None:
    text = text_of(whole_comparison())
    assert (
        "budget 11 min, sweep, seeds and answers included. Spent on training and answers: 9 min 10 s of 11 min (83 %)."
        in text
    )
    assert "14210 TFLOP9 min 10 s" in text
    over = whole_comparison(bakeoff=build_bakeoff(budget=8.0))
    assert "over the budget: 8 min" in text_of(over) and "(115 %)" in text_of(over)


@pytest.mark.parametrize(
    ("unit", "budget", "said"),
    [
        ("flops", 2.5e14, "Spent on training: 210 TFLOP of 250 TFLOP (84 %)."),
        ("usd", 2.0, "Spent on training and answers: 1.50 USD of 2.00 USD (75 %)."),
    ],
)
def test_the_budget_is_told_in_its_unit(unit: str, budget: float, said: str) -> None:
    html = whole_comparison(bakeoff=build_bakeoff(unit=unit, budget=budget), outcome=build_outcome(spent_usd=1.5))
    assert said in text_of(html)


def test_a_price_that_nobody_knows_is_unknown() -> None:
    html = whole_comparison(bakeoff=build_bakeoff(unit="usd", budget=2.0))
    assert "Spent on training and answers: unknown of 2.00 USD." in text_of(html)
    assert "over the budget" not in text_of(html)


@pytest.mark.parametrize("runs", [0, 4, 8, 14])
def test_a_comparison_that_goes_on_says_how_far_it_is(runs: int) -> None:
    trials = build_trials()[:runs]
    html = compare_page(build_bakeoff(), trials, None, folder="runs/x")
    page, text = Page(html), text_of(html)
    done = sum(t.learning_rate is not None for t in trials)
    assert f"Not finished: {done} of 10 training runs done." in text
    assert (page.unbalanced, page.open) == ([], [])
    targets = [v[1:] for v in page.values("href") if v.startswith("#")]
    assert [t for t in targets if t not in page.values("id")] == []
    assert "Smallest difference" in text and "Results" not in text
    assert not re.search(r"\bNone\b|nan\b", text)


def test_every_number_missing_does_not_crash() -> None:
    unknown = dict.fromkeys(("step_flops", "step_seconds", "training_seconds", "evaluation_seconds", "interval"))
    unknown |= dict.fromkeys(("peak_memory", "stored_bytes", "config"))
    planned = tuple(a.model_copy(update=unknown) for a in build_bakeoff().allowances)
    bakeoff = build_bakeoff(allowances=planned, base_hash=None, detectable=(), notes=())
    bare: dict[str, Any] = {"flops": None, "peak_memory": None, "stored_bytes": None, "trainable_params": None}
    bare |= {"chosen_by": None, "curve": (), "answers": ()}
    trials = [t.model_copy(update=bare) for t in build_trials()]
    result = build_outcome().results[0].model_copy(update={"means": {}, "intervals": {}, "flops": None})
    outcome = build_outcome(results=(result,), contrasts=(), conclusions=(), spent_usd=None, notes=())
    html = compare_page(bakeoff, trials, outcome, folder="x")
    page = Page(html)
    assert "unknown" in page.text and (page.unbalanced, page.open) == ([], [])
    assert not re.search(r"\bNone\b|nan\b|\binf\b", page.text)
    assert page.values("data-chart") == []


def test_the_small_samples_make_a_page() -> None:
    html = compare_page(builders.bakeoff(), [builders.trial()], builders.outcome(), folder="x")
    assert Page(html).unbalanced == [] and "lora:r=8 is best for style." in Page(html).text


def _poisoned_page() -> str:
    bakeoff = Bakeoff.model_validate(poison(build_bakeoff().model_dump(mode="json"), KEPT))
    trials = [Trial.model_validate(poison(t.model_dump(mode="json"), KEPT - {"answer"})) for t in build_trials()]
    outcome = Outcome.model_validate(poison(build_outcome().model_dump(mode="json"), KEPT))
    arm = builders.bakeoff().allowances[1]
    dirty = arm.model_copy(update={"arm": arm.arm.model_copy(update={"name": EVIL}), "learning_rates": (1e-4, 1e-3)})
    trained = [t.model_copy(update={"arm": EVIL}) for t in trials if t.curve]
    told = [Said(prompt=EVIL, expected=EVIL, answer=EVIL, ok=ok, side="facts") for ok in (True, False)]
    other = [build_trial("base", seed, None).model_copy(update={"answers": (told[0],)}) for seed in (0, 1)]
    trained = [t.model_copy(update={"answers": (told[1],)}) for t in trained]
    clean = build_bakeoff().allowances[0]
    bakeoff = bakeoff.model_copy(update={"allowances": (clean, dirty)})
    return compare_page(bakeoff, [*other, *trained], outcome, folder=EVIL)


def test_untrusted_text_stays_text() -> None:
    html = _poisoned_page()
    page = Page(html)
    assert html.count("alert(1)") > 40, "the poison must have reached the page"
    assert page.tags["img"] == page.tags["b"] == 0
    assert page.tags["script"] == len(page.values("data-chart")) + 2  # Plotly and ours
    assert [a for a in page.attributes if a[1].startswith("on")] == []
    assert page.unbalanced == page.open == []
    assert page.text.count("{{ 7*7 }}") > 20


def test_untrusted_text_in_a_chart_stays_text() -> None:
    html = _poisoned_page()
    assert "curves-flops" in Page(html).values("data-chart")
    told = json.dumps([figure(html, name) for name in Page(html).values("data-chart")])
    assert "&lt;script&gt;alert(1)" in told, "the poison must have reached the charts"
    assert "<script" not in told and "<img" not in told


def test_size_and_answers_of_any_length() -> None:
    long = Said(prompt='"' * 50_000, expected="e", answer="", ok=None, side="task")
    trials = [
        t.model_copy(update={"answers": tuple(long.model_copy(update={"answer": f"{t.arm} {n}"}) for n in range(300))})
        for t in build_trials()
        if t.purpose == "final"
    ]
    html = whole_comparison(trials=trials)
    assert len(without_plotly(html).encode()) < 400_000
    assert "49,000 more characters in trials/" in Page(html).text
