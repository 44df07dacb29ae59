"""The page: golden, safe against what models and data say, self-contained, small, and good in every state."""

import base64
import gzip
import json
import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rankwise.records import Answer, Artifact, Bin, Event, Evidence, Failed, Note, Plan, Reliability, Stopped
from rankwise.report.page import headline, plan_page, plotly_payload, prose, run_page
from tests.report.bakeoffs import whole_comparison
from tests.report.conftest import (
    TIME,
    build_artifact,
    build_estimate,
    build_evaluation,
    build_events,
    build_evidence,
    build_flip,
    build_memory,
    build_plan,
)
from tests.report.plans import build_13b, build_none
from tests.report.test_verdict_words import NOTHING

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """What a browser would see: elements, attributes, ids, text, and whether every element is closed."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data

    def values(self, name: str) -> list[str]:
        return [value for _, own, value in self.attributes if own == name]


def whole_run(**changes: Any) -> str:
    """The finished run, with any of its records replaced."""
    content = {"plan": build_plan(), "events": build_events(), "evidence": build_evidence()}
    content |= {"artifact": build_artifact(), "state": "finished", "folder": "runs/clinic-style"}
    return run_page(**(content | changes))


def without_plotly(html: str) -> str:
    payload = plotly_payload()
    return html.replace(payload.packed, "PLOTLY").replace(payload.csp_hash, "sha256-PLOTLY")


@pytest.mark.parametrize("name", ["run", "plan", "compare"])
def test_golden(name: str, golden: Path, plan: Plan) -> None:
    pages = {"run": whole_run, "plan": lambda: plan_page(plan), "compare": whole_comparison}
    html = without_plotly(pages[name]())
    path = golden / f"{name}.html"
    if os.environ.get("RANKWISE_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html + "\n", encoding="utf-8")
    assert html + "\n" == path.read_text(encoding="utf-8")


WHOLE = {"run": whole_run(), "plan": plan_page(build_plan()), "compare": whole_comparison()}

STATES: dict[str, tuple[list[Event], str, list[str]]] = {
    "planned": ([], "planned", ["Planned, not started.", "No training step was written"]),
    "running": (build_events(7), "running", ["Running: step 7 of 30.", "rankwise show RUN"]),
    "stopped": (
        [*build_events(12), Stopped(time=TIME, step=12, reason="the stop file was found")],
        "stopped",
        ["Stopped at step 12 of 30.", "Reason: the stop file was found", "rankwise train RUN --resume"],
    ),
    "failed": (
        [*build_events(3), Failed(time=TIME, what="loss is nan", expected="a number", fix="lower the learning rate")],
        "failed",
        ["Failed at step 3 of 30.", "loss is nan", "expected: a number", "fix: lower the learning rate"],
    ),
    "killed": (build_events(12), "killed", ["Killed at step 12 of 30", "wrote no evidence.json"]),
}


@pytest.mark.parametrize(("events", "state", "said"), STATES.values(), ids=STATES.keys())
def test_a_run_without_evidence_says_what_is_missing(events: list[Event], state: str, said: list[str]) -> None:
    page = Page(run_page(build_plan(), events, None, None, state))
    text = " ".join(page.text.replace("\u00a0", " ").split())
    assert [s for s in said if s not in text] == []
    assert text.count("rankwise eval RUN") == 2
    assert "rankwise verify RUN" in text
    assert "unknown" in text
    assert (page.unbalanced, page.open) == ([], [])


def test_a_run_without_evaluation_names_the_command() -> None:
    page = Page(whole_run(evidence=build_evidence(evaluation=None), artifact=None))
    assert page.text.count("rankwise eval runs/clinic-style") == 3
    assert "Not proven yet" in page.text


def test_commands_on_the_page_can_be_pasted() -> None:
    html = run_page(build_plan(), [], None, None, "stopped", folder="my runs/a")
    commands = re.findall(r"<code>(rankwise [^<]+)</code>", html)
    assert len(commands) == 4
    assert [c for c in commands if "&#39;my runs/a&#39;" not in c] == []


def test_every_number_missing_does_not_crash() -> None:
    estimate = build_estimate()
    memory = build_memory(peak_phase=None, peak_op=None, eval_peak=None, save_peak=None, merge_peak=None)
    nothing = {"tokens_per_second": None, "step_seconds": None, "train_seconds": None, "interval": None}
    time = estimate.time.model_copy(update=nothing)
    priced = build_estimate(memory=memory, time=time, sources={}, total_params=0, id=None)
    empty = {"reasons": (), "rejected": (), "flips": (), "warnings": (), "questions": (), "runner_up": None}
    empty |= {"rungs": (), "offers": (), "priors": {}}
    optional = ("first_loss", "final_loss", "base_validation_loss", "best_validation_loss", "best_validation_step")
    blank = dict.fromkeys((*optional, "final_validation_loss", "train_seconds"))
    evaluation = build_evaluation(comparisons=(), answers=(), notes=())
    evidence = build_evidence(**blank, actuals=(), findings=(), evaluation=evaluation)
    plans = [build_plan(**empty, candidates=(priced,)), build_plan(**empty, candidates=(), verdict=NOTHING)]
    pages = [plan_page(p) for p in plans] + [run_page(p, [], evidence, None, "finished") for p in plans]
    texts = [Page(html).text for html in pages]
    assert len(texts) == 4
    assert all("unknown" in text for text in texts)
    assert not any(re.search(r"\bNone\b|nan\b|\binf\b", text) for text in texts)


EVIL = '<script>alert(1)</script></script><img src=x onerror=alert(1)>{{ 7*7 }}{% raw %}"\' onload="alert(1) <!-- '
EVIL += "`<b>x</b>`"


def poison(node: Any, kept: frozenset[str]) -> Any:
    """Every free string of a record replaced; what the schema restricts is left."""
    if isinstance(node, dict):
        return {k: v if k in kept else poison(v, kept) for k, v in node.items()}
    if isinstance(node, list):
        return [poison(v, kept) for v in node]
    return EVIL if isinstance(node, str) else node


KEPT = frozenset(
    {"kind", "level", "answer", "unit", "metric", "parallel", "confidence", "dtype", "autocast", "on_long"}
)
KEPT |= {"job", "time", "event", "id", "candidate", "runner_up", "step"}


def poisoned(plan: Plan, *kept: str) -> Plan:
    dirty = poison(plan.model_dump(mode="json", by_alias=True), KEPT | {*kept})
    for rung in dirty["rungs"]:
        rung["name"] = "prompting"
    return Plan.model_validate(dirty)


def poisoned_page() -> str:
    plan = poisoned(build_plan())
    evidence = Evidence.model_validate(poison(build_evidence().model_dump(mode="json"), KEPT))
    artifact = Artifact.model_validate(poison(build_artifact().model_dump(mode="json"), KEPT - {"job"}))
    raw = [type(e).model_validate(poison(e.model_dump(mode="json"), KEPT)) for e in build_events()]
    failed = Failed(time=TIME, what=EVIL, expected=EVIL, fix=EVIL)
    return run_page(plan, [*raw, Note(time=TIME, text=EVIL), failed], evidence, artifact, "failed", folder=EVIL)


def test_untrusted_text_stays_text() -> None:
    html = poisoned_page()
    page = Page(html)
    clean = Page(whole_run())
    assert html.count("alert(1)") > 100, "the poison must have reached the page"
    assert page.tags["script"] == clean.tags["script"] == 8  # ours, Plotly, and the data of six charts
    assert page.tags["img"] == page.tags["b"] == 0
    assert [a for a in page.attributes if a[1].startswith("on")] == []
    assert page.unbalanced == page.open == []
    assert page.text.count("{{ 7*7 }}") > 50


def test_untrusted_text_in_a_chart_stays_text() -> None:
    html = plan_page(poisoned(build_13b(), "method"))  # which names the candidates that were rejected
    page = Page(html)
    blocks = re.findall(r'<script type="application/json" id="pareto-\w+">(.*?)</script>', html, re.DOTALL)
    assert len(blocks) == 3
    told = [t for b in blocks for trace in json.loads(b)["data"][1:] for t in trace["customdata"]]
    assert any("&lt;script&gt;alert(1)" in t for t in told), "the poison must have reached the charts"
    assert not [t for t in told if "<script" in t or "<img" in t]
    assert page.tags["script"] == Page(plan_page(build_13b())).tags["script"]
    assert [a for a in page.attributes if a[1].startswith("on")] == []
    assert page.unbalanced == page.open == []


def test_scripts_that_run_are_named_by_their_hash() -> None:
    html = poisoned_page()
    policy = next(v for v in Page(html).values("content") if "default-src" in v)
    allowed = re.findall(r"'(sha256-[^']+)'", policy.split("script-src")[1])
    assert len(allowed) == 2
    assert "unsafe" not in policy.split("script-src")[1]
    assert "default-src 'none'" in policy


def test_json_in_a_script_cannot_close_it() -> None:
    html = poisoned_page()
    block = re.search(r'id="curves-data">(.*?)</script>', html, re.DOTALL)
    assert block is not None
    assert "<" not in block.group(1)
    assert len(json.loads(block.group(1))["data"]) == 3


@pytest.mark.parametrize("html", WHOLE.values(), ids=WHOLE.keys())
def test_nothing_is_loaded_from_a_network(html: str) -> None:
    page = Page(html)
    links = [v for name in ("src", "href", "srcset", "action", "data") for v in page.values(name)]
    assert len(links) >= 8
    assert [v for v in links if not v.startswith("#") and v != "data:,"] == []
    assert not re.search(r"url\(|@import|https?://", without_plotly(html))


@pytest.mark.parametrize("html", WHOLE.values(), ids=WHOLE.keys())
def test_anchors_headings_and_names(html: str) -> None:
    page = Page(html)
    ids = page.values("id")
    assert len(ids) == len(set(ids)) >= 6
    targets = [v[1:] for v in page.values("href") if v.startswith("#")] + page.values("aria-labelledby")
    assert len(targets) >= 12
    assert [t for t in targets if t not in ids] == []
    assert page.tags["h1"] == page.tags["title"] == page.tags["main"] == 1
    assert ("html", "lang", "en") in page.attributes
    pictures = [(tag, dict_) for tag, name, dict_ in page.attributes if name == "role" and dict_ == "img"]
    assert 0 < len(pictures) <= len(page.values("aria-label"))
    assert (page.unbalanced, page.open) == ([], [])


def test_findings_come_first_and_each_with_the_section_that_explains_it() -> None:
    page = Page(whole_run())
    heads = [v for tag, name, v in page.attributes if tag == "h2" and name == "id"]
    assert heads[:2] == ["findings", "answers"] and heads.index("forgetting") == heads.index("spectra") - 1
    assert "still_learning, explained in docs/findings.md#learned" in page.text


def test_what_is_worst_is_told_first() -> None:
    first, second = build_evidence().findings
    worse = first.model_copy(update={"name": "worst", "level": "fault", "text": "All is lost"})
    page = Page(whole_run(evidence=build_evidence(findings=(second, first, worse))))
    told = [page.text.rindex(said) for said in ("All is lost", "still fell", "The best validation loss")]
    assert told == sorted(told)


def test_findings_so_far_are_on_the_page_of_a_run_that_goes_on() -> None:
    so_far = build_evidence().findings
    page = Page(run_page(build_plan(), build_events(7), None, None, "running", findings=so_far))
    assert "So far: the run has not ended." in page.text and "Validation loss still fell" in page.text


def test_what_was_watched_is_drawn_and_stands_in_tables() -> None:
    page = Page(whole_run())
    charts = ["curves-data", "forgetting-data", "frontier-data", "spectrum-data", "growth-data"]
    assert page.values("data-chart") == ["reliability-answers-data", *charts]
    text = " ".join(page.text.replace("\u00a0", " ").split())
    assert "At step 30 general ability is ! amber, the level of its worst slice" in text
    assert "everyday text general loss, nats per token 40 2.913 nats 2.973 nats +0.060 nats +0.052 to +0.068" in text
    assert "arc_easy choice, share 100 49 % 46 % −3 points −9 to +3 −3 points step 30 ✓ green" in text
    assert "24 trained matrices at step 30" in text and "model.layers.5.mlp.down_proj6 of 8" in text
    assert "moved by 0.030 nats per token from the base" in text


def test_how_sure_it_was_is_drawn_beside_how_often_it_was_right() -> None:
    def bins(*rows: tuple[float, int, float]) -> tuple[Bin, ...]:
        return tuple(Bin(low=low, high=low + 0.1, items=n, confidence=low, accuracy=right) for low, n, right in rows)

    measured = Reliability(kind="answers", base=bins((0.5, 8, 0.5)), tuned=bins((0.5, 20, 0.25)))
    evaluation = build_evaluation(reliability=(measured,))
    page = Page(whole_run(evidence=build_evidence(evaluation=evaluation)))
    assert "reliability-answers-data" in page.values("data-chart") and (page.unbalanced, page.open) == ([], [])
    text = " ".join(page.text.replace("\u00a0", " ").split())
    assert "Is it as sure as it is right?" in text and "50 % to 60 % answers850 %2025 %" in text
    unmeasured = build_evidence(evaluation=build_evaluation(reliability=()))
    assert "as sure as it is right" not in Page(whole_run(evidence=unmeasured)).text


def test_a_run_that_was_not_watched_says_nothing_of_it() -> None:
    bare = [e for e in build_events() if e.event not in ("watched", "spectrum")]
    page = Page(whole_run(events=bare, evidence=build_evidence(evaluation=None)))
    assert page.values("data-chart") == ["curves-data"]
    assert not {"forgetting", "spectra"} & {*page.values("id")} and "Spectra" not in page.text


def test_a_page_without_charts_needs_no_script_payload() -> None:
    html = plan_page(build_plan(priors={}))
    assert len(html.encode()) < 100_000
    assert 'id="plotly-gzip-base64"' not in html
    assert plotly_payload().packed[:100] not in html
    assert "Quality against cost" not in html


def test_the_charts_of_a_plan_are_drawn_from_its_options() -> None:
    html = plan_page(build_13b())
    page = Page(html)
    assert page.values("data-chart") == ["pareto-usd", "pareto-time", "pareto-memory"]
    for name in page.values("data-chart"):
        block = re.search(rf'id="{name}">(.*?)</script>', html, re.DOTALL)
        assert block is not None
        drawn = [x for trace in json.loads(block.group(1))["data"][1:] for x in trace["x"]]
        assert len(drawn) == 11
    text = " ".join(page.text.replace("\u00a0", " ").split())
    assert "★ the call, lora-r16 · ◆ runner-up, full-8bit-zero3" in text
    assert "Not drawn, far below: ia3 (75 %, discouraged)" in text


def test_every_option_offer_flip_and_rung_is_on_the_page() -> None:
    plan = build_13b()
    text = " ".join(Page(plan_page(plan)).text.replace("\u00a0", " ").split())
    said = [e.id for e in plan.candidates] + [r.text.rstrip(".") for r in plan.rungs] + list(plan.questions)[1:]
    said += [f.if_ for f in plan.flips] + [o.candidate for o in plan.offers] + [o.source for o in plan.offers]
    said += [r.rule for r in plan.rejected] + [*plan.warnings]
    assert [s for s in said if s is None or s not in text] == []
    assert text.count(plan.warnings[0]) == 1, "the first warning is the paragraph's risk, and said once"


def test_evidence_is_linked_to_where_it_is_spelled_out() -> None:
    html = plan_page(build_13b())
    page = Page(html)
    targets = [v[1:] for v in page.values("href") if v.startswith("#evidence-")]
    assert set(targets) == {f"evidence-{n}" for n in range(1, 7)}
    assert len(targets) >= 12
    assert html.count("The other side: ") == 2
    assert "6 sources" in page.text


def test_the_page_of_a_job_that_nothing_can_do() -> None:
    page = Page(plan_page(build_none()))
    assert (page.unbalanced, page.open) == ([], [])
    assert page.tags["h1"] == 1
    assert "Nothing fits 2 × A100-80GB" in page.text
    assert "The cheapest that would fit: qlora-r16 on one L4-24GB" in page.text.replace("\u00a0", " ")
    assert "unknown: the weights are not here" in page.text
    assert not re.search(r"\bNone\b", page.text)


def test_size_of_a_common_page() -> None:
    assert len(whole_run().encode()) < 2_500_000


def test_size_of_the_largest_page() -> None:
    quotes = '"' * 5_000
    kinds = ("format", "fact")
    answers = tuple(
        Answer(kind=kind, prompt=quotes, expected=quotes, base=quotes, tuned=quotes, base_ok=False, tuned_ok=True)  # type: ignore[arg-type]
        for kind in kinds * 1_000
    )
    steps = [e for e in build_events() if e.event == "step"]
    events = [e.model_copy(update={"step": n + 1}) for n, e in enumerate(steps * 2_000)]
    html = whole_run(evidence=build_evidence(evaluation=build_evaluation(answers=answers)), events=events)
    assert len(events) == 60_000
    assert len(html.encode()) < 5_000_000
    assert html.count('class="answer"') == 100
    assert "950 more stand in" in html


def test_plotly_survives_the_packing() -> None:
    source = gzip.decompress(base64.b64decode(plotly_payload().packed))
    assert len(source) > 4_000_000
    assert b"</script" not in plotly_payload().packed.encode()


def test_answers_show_six_and_fold_the_rest() -> None:
    html = whole_run()
    first, _, folded = html.partition("<summary>3 more</summary>")
    assert html.count('class="answer"') == 16  # 12, of which 4 are confident and wrong and stand there, too
    assert first.count('class="answer"') == 4 + 3
    assert folded.count("<summary>3 more</summary>") == 1


def test_a_tick_means_the_expected_answer_where_the_job_has_no_format() -> None:
    evaluation = build_evaluation()
    exact = [c.model_copy(update={"metric": "exact_match"}) for c in evaluation.comparisons if c.metric == "format"]
    other = [c for c in evaluation.comparisons if c.metric not in ("format", "exact_match")]
    unformed = evaluation.model_copy(update={"comparisons": (*exact, *other)})
    pages = [
        run_page(build_plan(), build_events(), build_evidence(evaluation=e), None, "finished")
        for e in (evaluation, unformed)
    ]
    assert ["right form" in page for page in pages] == [True, False]
    assert ["not as expected" in page for page in pages] == [False, True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 % -> 99 %", "2\u00a0%\u00a0→ 99\u00a0%"),
        ("-3 to +3", "−3 to +3"),
        ("run `rankwise eval a -> b`", "run <code>rankwise eval a -&gt; b</code>"),
        ("<b> & `<i>`", "&lt;b&gt; &amp; <code>&lt;i&gt;</code>"),
        ("E1-2 and 1e-5", "E1-2 and 1e-5"),
    ],
)
def test_prose(text: str, expected: str) -> None:
    assert str(prose(text)) == expected


def test_headline_steps_back_inside_brackets() -> None:
    assert str(headline("A (<1) b")) == 'A <span class="aside">(&lt;1)</span> b'


def test_flips_keep_their_condition() -> None:
    plan = build_plan(flips=(build_flip("<x> were 7", "QLoRA", "x", 7.0, 1.0, ""),))
    assert "&lt;x&gt; were 7" in plan_page(plan)


def test_report_imports_no_torch() -> None:
    code = (
        "import sys; import rankwise.report.page, rankwise.report.words; "
        "print(sorted({'torch', 'transformers', 'peft', 'accelerate'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_plotly_is_packed_once_and_the_hash_is_never_that_of_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path))
    plotly_payload.cache_clear()
    made = plotly_payload()
    (kept,) = (tmp_path / "plotly").iterdir()
    assert kept.read_text() == made.packed
    kept.write_text(base64.b64encode(gzip.compress(b"alert(1)")).decode())
    plotly_payload.cache_clear()
    changed = plotly_payload()
    assert changed.packed == kept.read_text() and changed.csp_hash == made.csp_hash
    kept.write_bytes(b"\xff")
    plotly_payload.cache_clear()
    assert plotly_payload() == made
    plotly_payload.cache_clear()
