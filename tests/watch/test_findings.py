"""The list of findings: their order, their names, their links, and what an ordinary run says."""

import re
from pathlib import Path

import pytest

from rankwise.records import Event
from rankwise.watch.findings import FINDINGS, find
from rankwise.watch.raised import PAGE, link_of
from tests import builders
from tests.builders import finished, spectrum, started, step, validation, watched, whole_run

PLAN = builders.plan()
ROOT = Path(__file__).resolve().parents[2]


def troubled() -> list[Event]:
    """A run that is slow, large, overfits and whose gradients jump."""
    steps = [step(n, seconds=1e6, grad_norm=50.0 if n == 12 else 1.0) for n in range(1, 15)]
    checks = [validation(5 * i, loss) for i, loss in enumerate((2.5, 2.0, 1.0, 2.0))]
    return [*steps, *checks, finished(peak_memory_bytes=10**12)]


def test_findings_are_told_in_their_order_under_their_own_names() -> None:
    names = [f.name for f in find(PLAN, troubled())]
    order = [f.__name__ for f in FINDINGS]
    assert names == sorted(names, key=order.index) and len(names) == 5


def test_an_ordinary_run_is_good_news_alone() -> None:
    assert [(f.name, f.level) for f in find(PLAN, whole_run())] == [("learned", "good")]


def test_a_run_without_events_says_nothing() -> None:
    assert find(PLAN, []) == find(None, []) == []


def test_without_a_plan_what_needs_none_is_still_told() -> None:
    assert [f.name for f in find(None, troubled())] == ["learned", "overfitting", "gradient_spikes"]


def test_findings_of_a_run_do_not_hang_on_events_that_say_nothing_of_it() -> None:
    beside = [started(), watched(difference=0.0), spectrum()]
    told = {f.name for f in find(PLAN, [*beside, *troubled()])}
    assert {f.name for f in find(PLAN, troubled())} <= told


def sections() -> dict[str, str]:
    """Anchor -> text of each section of the page."""
    parts = re.split(r"^## (.+)$", (ROOT / PAGE).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {head.lower().replace(" ", "-"): text for head, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("name", [f.__name__ for f in FINDINGS])
def test_every_finding_is_explained_where_its_link_says(name: str) -> None:
    page, _, anchor = link_of(name).partition("#")
    assert page == PAGE and anchor in sections()
    assert all(f"**{word}**" in sections()[anchor] for word in ("Means", "Computed", "Do")), anchor


def test_no_section_explains_a_finding_that_there_is_not() -> None:
    explained = [anchor for anchor, text in sections().items() if "**Computed**" in text]
    assert sorted(explained) == sorted(link_of(f.__name__).partition("#")[2] for f in FINDINGS)


def test_a_finding_carries_its_link() -> None:
    assert {f.link for f in find(PLAN, troubled())} == {link_of(f.name) for f in find(PLAN, troubled())}
