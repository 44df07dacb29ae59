"""Every number in a table or a card has its unit and its source beside it, on all three pages, and in one order of
sections: the verdict, then what it stands on, then the rest."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest

from tests.report.test_page import VOID, WHOLE

EVIDENCE = {
    *("why", "quality", "findings", "answers", "scores", "benchmarks", "training", "forgetting", "spectra"),
    *("predicted", "proof", "results", "pareto", "curves", "contrasts", "detectable", "sweep"),
}
DETAIL = {"prices", "rent", "memory", "settings", "lineage", "budget", "notes", "computed"}
UNIT = re.compile(
    r"%|\b(?:[kMGT]?B|USD|[kMGTPE]?FLOPs?|ms|s|min|h|days?|d|weeks?|months?|nats|points?|tokens(?:/s)?|rows|steps?|"
    r"parameters|probes|items|runs|seeds|rates|checks|directions|bits)\b|unknown|×"
)
# Columns that count what their head names, or that hold a number without a unit, as the note or the source says.
COUNTED = {
    *("Items", "Examples shown", "Answers of base", "Answers of tuned", "Intruders", "Seed", "Steps", "Probes"),
    *("Steps of a run", "Sweep", "Runs so far", "Runs a week", "Runs a dollar", "Trained parameters", "Seconds"),
    *("Learning rate", "Gradient norm", "Norm", "p, corrected", "Speed", "More probes needed"),
}


@dataclass
class Node:
    tag: str
    attributes: dict[str, str]
    above: "Node | None"
    inside: list["Node | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        parts = (part if isinstance(part, str) else f" {part.text} " for part in self.inside)
        return " ".join("".join(parts).replace("\u00a0", " ").split())

    def all(self, *tags: str) -> Iterator["Node"]:
        for part in self.inside:
            if isinstance(part, Node):
                if part.tag in tags:
                    yield part
                yield from part.all(*tags)

    def has(self, name: str) -> bool:
        return name in self.attributes.get("class", "").split()


class Tree(HTMLParser):
    def __init__(self, html: str):
        super().__init__()
        self.root = self.at = Node("page", {}, None)
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.inside.append(node)
        if tag not in VOID:
            self.at = node

    def handle_endtag(self, tag: str) -> None:
        assert self.at.above is not None
        self.at = self.at.above

    def handle_data(self, data: str) -> None:
        if self.at.tag not in ("script", "style"):
            self.at.inside.append(data)


PAGES = {name: Tree(html).root for name, html in WHOLE.items()}
ALL = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())


def number_tables(page: Node) -> list[Node]:
    """Tables that hold numbers: all but hashes, settings and rules."""
    return [
        t
        for t in page.all("table")
        if not ({"pairs", "settings", "rejections"} & {*t.attributes.get("class", "").split()})
    ]


def cells(table: Node) -> Iterator[tuple[str, Node]]:
    """(head of its column, cell) of every cell that is no head."""
    heads = [" ".join(th.text.split()) for th in next(table.all("thead"), table).all("th")]
    for row in table.all("tr"):
        found = [part for part in row.inside if isinstance(part, Node) and part.tag in ("td", "th")]
        if any(cell.tag == "td" for cell in found):
            for at, cell in enumerate(found):
                if cell.tag == "td":
                    yield heads[at] if len(heads) == len(found) else "", cell


@ALL
def test_every_table_of_numbers_is_described_by_its_source(page: Node) -> None:
    ids = {node.attributes["id"]: node for node in page.all("p", "dl", "figcaption") if "id" in node.attributes}
    tables = number_tables(page)
    assert len(tables) >= 4
    for table in tables:
        told = ids.get(table.attributes.get("aria-describedby", ""))
        assert told is not None, f"no source: {table.text[:80]}"
        assert re.search(r"\bSources?:", told.text) or told.has("facts"), told.text
        assert len(told.text) > 20


@ALL
def test_every_number_has_a_unit(page: Node) -> None:
    looked_at, without = 0, []
    for table in (t for t in number_tables(page) if t.has("numbers")):
        for head, cell in cells(table):
            if not re.search(r"\d", cell.text) or cell.has("words"):
                continue
            looked_at += 1
            if not (UNIT.search(cell.text) or UNIT.search(head) or any(head.startswith(name) for name in COUNTED)):
                without.append((head, cell.text))
    assert not without
    assert looked_at >= 20


@ALL
def test_every_card_has_a_unit_and_a_source(page: Node) -> None:
    cards = [div for dl in page.all("dl") if dl.has("figures") for div in dl.all("div")]
    for card in cards:
        value, source = (next(s for s in card.all("span") if s.has(name)) for name in ("value", "source"))
        assert UNIT.search(f"{value.text} {next(card.all('dt')).text.lower()}") or not re.search(r"\d", value.text), (
            card.text
        )
        assert source.text, card.text
    assert cards or page is not PAGES["run"]


@pytest.mark.parametrize("name", ["plan", "run"])
def test_every_prediction_has_its_range(name: str) -> None:
    tables = [t for t in PAGES[name].all("table") if t.has("options")]
    assert len(tables) == 2
    ranged = ("Peak memory", "Training time", "One run", "Expected quality", "All runs", "Speed", "Runs a")
    looked_at = 0
    for table in tables:
        for head, cell in cells(table):
            if head.startswith(ranged) and re.search(r"\d", cell.text):
                small = [span.text for span in cell.all("span") if span.has("source")]
                assert small and re.search(r"\d.* to ", small[0]), (head, cell.text)
                looked_at += 1
    assert looked_at >= 10


@ALL
def test_what_can_be_pointed_at_is_written_out_too(page: Node) -> None:
    """A title is for the mouse alone: what it says stands on the page for everybody else."""
    text = page.text
    titles = {node.attributes["title"] for node in page.all("td", "tr") if node.attributes.get("title")}
    assert not [title for title in titles if " ".join(title.replace("\u00a0", " ").split()) not in text]


@ALL
def test_the_verdict_then_what_it_stands_on_then_the_rest(page: Node) -> None:
    main = next(page.all("main"))
    parts = [part for part in main.inside if isinstance(part, Node)]
    assert [part.tag for part in parts[:2]] == ["header", "nav"]
    assert len(list(parts[0].all("h1"))) == 1
    sections = [part.attributes["aria-labelledby"] for part in parts[2:]]
    assert sections[-1] == "terms" and set(sections[:-1]) <= EVIDENCE | DETAIL
    kinds = [name in DETAIL for name in sections[:-1]]
    assert kinds == sorted(kinds), f"detail stands before evidence: {sections}"
    assert any(kinds) and not all(kinds)
    links = [a.attributes["href"].removeprefix("#") for a in parts[1].all("a")]
    assert links == sections, "the list at the top has the sections of the page, in their order"


@ALL
def test_all_tables_can_be_scrolled_by_keyboard(page: Node) -> None:
    wide = [t for t in page.all("table") if t.has("numbers")]
    for table in wide:
        above = table.above
        assert above is not None and above.has("scroll") and above.attributes["tabindex"] == "0"
        assert above.attributes["aria-label"]
