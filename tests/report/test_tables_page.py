"""The page of `rankwise tables`: one file, whole HTML, both pictures, no part that was not asked for."""

import json
import math
import re
from typing import Any

from rankwise.records.tables import Tables
from rankwise.report.page import plotly_payload
from rankwise.report.tables_page import tables_page
from tests.report.test_page import Page
from tests.report.test_tables_words import build_claim, build_cost, build_tables


def figure(html: str, name: str) -> dict[str, Any]:
    block = re.search(rf'id="{name}">(.*?)</script>', html, re.DOTALL)
    assert block
    found: dict[str, Any] = json.loads(block.group(1))
    return found


def test_the_page_is_whole_and_loads_nothing() -> None:
    html = tables_page(build_tables(), version="1.2.3")
    page = Page(html)
    assert not page.unbalanced and not page.open
    assert not [u for u in (*page.values("src"), *page.values("href")) if not u.startswith(("#", "data:"))]
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in page.values("href") if link.startswith("#")} <= set(ids)
    assert "Made by Rankwise 1.2.3 from its own estimates and plans" in page.text
    assert html.count(plotly_payload().packed) == 1


def test_said_computed_and_why_stand_side_by_side() -> None:
    text = " ".join(Page(tables_page(build_tables(), version="0")).text.split())
    for expected in ("~98 GB (8x A100 40GB)", "Two rules.", "4 × 40.5 GB", "not on 64", "state alone"):
        assert expected in text.replace("\u00a0", " "), expected
    assert "41,943,040 parameters (the lesson: 83,886,080 parameters)" in text
    assert "nothing that an estimate or a plan could show" in text


def test_memory_is_drawn_on_a_log_scale_with_the_cards() -> None:
    drawn = figure(tables_page(build_tables(), version="0"), "memory-data")
    layout = drawn["layout"]
    assert layout["yaxis"]["type"] == "log"
    assert [shape["y0"] for shape in layout["shapes"]] == [84.98]
    assert layout["annotations"][0]["text"] == "one A100-80GB"
    assert math.isclose(layout["annotations"][0]["y"], math.log10(84.98))
    assert {trace["name"]: trace["y"] for trace in drawn["data"]}["ZeRO-3"] == [135.0]
    assert {trace["name"]: trace["y"] for trace in drawn["data"]}["the lesson, full"] == [98.0]


def test_cost_is_drawn_with_its_intervals_beside_the_lessons_range() -> None:
    drawn = figure(tables_page(build_tables(), version="0"), "cost-data")
    bars, short, _ = drawn["data"]
    assert (bars["base"], bars["y"]) == ([15.0], [15.0])
    assert short["y"] == [24.7]
    assert math.isclose(short["error_y"]["array"][0], 49.4 - 24.7)
    assert "3 USD" in drawn["layout"]["yaxis"]["title"]["text"]


def test_without_prices_there_is_a_table_and_no_picture() -> None:
    unknown = {"usd_at_said_price": None, "usd_at_said_price_interval": None, "against_said": None}
    only = build_tables().model_copy(update={"memory": (), "claims": (), "cost": (build_cost(**unknown),)})
    html = tables_page(only, version="0")
    assert "cost-data" not in html and plotly_payload().packed not in html
    assert "unknown" in html and not Page(html).unbalanced


def test_a_part_that_was_not_asked_for_has_no_heading() -> None:
    tables = build_tables()
    empty = Tables(memory=(), cost=(), claims=tables.claims, assumptions=tables.assumptions)
    page = Page(tables_page(empty, version="0"))
    assert "claims" in page.values("id") and not {"memory", "cost"} & set(page.values("id"))


def test_hostile_words_are_escaped() -> None:
    hostile = build_tables().model_copy(update={"claims": (build_claim(said="<script>alert(1)</script>"),)})
    page = Page(tables_page(hostile, version="0"))
    assert (
        "<script>alert(1)</script>" in page.text
        and page.tags["script"] == Page(tables_page(build_tables(), version="0")).tags["script"]
    )
