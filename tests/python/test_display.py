"""Records, runs and comparisons show themselves: as text at a prompt, as a safe fragment in a notebook."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import rankwise as rw
from rankwise.compare.folder import Folder
from rankwise.files import write_record
from rankwise.records.selfcheck import Condition as Found
from rankwise.records.selfcheck import Environment
from rankwise.report import notebook, shown_words
from rankwise.store import Run
from rankwise.watch.evidence import summarise
from tests import builders
from tests.report import conftest as pages

HOSTILE = "<script>alert(1)</script>\" onload='x' `a` & </style><img src=x>"


class Safe(HTMLParser):
    """Counts what a fragment holds; anything that could run or load makes it fail."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.feed(html)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "iframe", "img", "link", "object", "base", "form"}, tag
        assert not [name for name, _ in attrs if name.startswith("on") or name in {"src", "id", "href"}], attrs
        self.seen.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


RECORDS: dict[str, Any] = {
    "plan": pages.build_plan(),
    "evidence": pages.build_evidence(),
    "evaluation": pages.build_evaluation(),
    "verification": pages.build_verification(False),
    "artifact": pages.build_artifact(),
    "estimate": pages.build_estimate(),
    "watching": builders.watching(),
    "diagnosis": builders.diagnosis(),
    "benchmarks": builders.benchmarks(),
    "exported": builders.exported(),
    "engine": builders.engine_fit(),
    "environment": Environment(conditions=(Found(name="torch", value="2", ok=True),), gpus=()),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_shows_its_words(name: str) -> None:
    assert rw.records  # whoever asks for anything of the package has records that show themselves
    record = RECORDS[name]
    text = repr(record)
    first = shown_words.said_of(record).lead[0]
    assert text.startswith(first) and str(record) == text and len(text) < 20_000
    printed = io.StringIO()
    Console(file=printed, width=10_000).print(record)
    assert printed.getvalue().rstrip() == text.rstrip()
    html = record._repr_html_()
    assert Safe(html).seen >= {"div", "style", "p"} and "http" not in html.partition("</style>")[0]


def test_what_a_row_or_a_model_says_is_only_text() -> None:
    plan = pages.build_plan()
    job = plan.job.model_copy(update={"name": HOSTILE, "model": HOSTILE})
    facts = plan.facts.model_copy(update={"model": plan.facts.model.model_copy(update={"name": HOSTILE})})
    html = plan.model_copy(update={"job": job, "facts": facts})._repr_html_()
    assert html is not None and "&lt;script&gt;" in html
    Safe(html)
    Safe(notebook.said_fragment(shown_words.Said([HOSTILE], [shown_words.Table(HOSTILE, [HOSTILE], [[HOSTILE]])])))


def test_records_without_words_stay_as_they_are() -> None:
    price = builders.tariff()
    assert repr(price).startswith("Tariff(") and price._repr_html_() is None
    printed = io.StringIO()
    Console(file=printed, width=10_000).print(price)
    assert printed.getvalue().startswith("Tariff(")


def test_the_style_reaches_nothing_outside_of_the_fragment() -> None:
    css = notebook.style()
    assert css.startswith(".rankwise {") and css.count("{") == css.count("}")
    assert not re.search(r"(^|[\s,}])(:root|body|html)\b", css)
    assert "--accent" in css  # the report's own colours


def test_a_run_shows_how_far_it_is(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    plan = builders.plan()
    run.begin(plan)
    assert rw.records and "Planned, not started" in repr(run)
    for event in builders.whole_run():
        run.append(event)
    write_record(run.evidence_path, summarise(plan, builders.whole_run()))
    assert "Finished: step 20" in repr(run)
    html = run._repr_html_()
    assert html is not None and "figures" in Safe(html).seen | set(re.findall(r'class="(\w+)"', html))
    run.plan_path.write_text("{")
    assert "is damaged" in repr(run) and "is damaged" in (run._repr_html_() or "")


def test_a_comparison_shows_its_verdict(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    write_record(folder.bakeoff_path, builders.bakeoff())
    assert rw.records and "arms" in repr(folder).lower()
    write_record(folder.outcome_path, builders.outcome())
    for seed in (0, 1):
        for arm in ("base", "lora:r=8"):
            trial = builders.trial(arm, seed)
            write_record(tmp_path / "trials" / f"{arm.replace(':', '-')}-{seed}.json", trial)
    assert repr(folder).startswith(builders.outcome().verdict)
    Safe(folder._repr_html_() or "")
