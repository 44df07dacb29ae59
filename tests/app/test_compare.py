"""Compare over HTTP: the list, one comparison as its report shows it, and how far one is that runs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rankwise.app import compare
from rankwise.files import write_record
from rankwise.store import Run
from tests.app.house import open_house
from tests.report.bakeoffs import build_outcome, whole_comparison
from tests.test_comparisons import made


def test_the_list_says_what_came_of_each(client: httpx.Client) -> None:
    page = client.get("/compare").text
    assert re.findall(r'href="/compare/(\w+)"', page) == ["clinic", "half"]
    assert "Of the arms that nobody beats on style, facts and task" in page
    assert "6 of 10 training runs" in page and "Not known yet." in page


def test_a_comparison_is_what_its_report_shows(client: httpx.Client) -> None:
    page = client.get("/compare/clinic").text
    report = whole_comparison(folder="clinic")
    for part in (r"<h1>.*?</h1>", r"<section.*</section>", r"<title>.*?</title>"):
        assert _part(part, page) == _part(part, report)
    figure = r'<script type="application/json" id="([\w-]+)">(.*?)</script>'
    assert dict(re.findall(figure, page)) == dict(re.findall(figure, report)) != {}
    assert "/static/plotly.js" in page and "data-stream" not in page


def _part(pattern: str, page: str) -> str:
    found = re.search(pattern, page, re.DOTALL)
    assert found, pattern
    return re.sub(r"\s+", " ", found[0])


def test_one_that_is_not_there_is_told(client: httpx.Client) -> None:
    for name in ("nothing", "..%2f..%2fetc"):
        assert client.get(f"/compare/{name}").status_code == 404


def test_while_it_runs_it_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "AGAIN_SECONDS", 0.05)
    folder = made(tmp_path / "comparisons" / "live", 7)
    with open_house(tmp_path) as house, house.client() as client:
        with Run(folder).lock():
            page = client.get("/compare/live").text
            assert 'data-stream="/compare/live/stream"' in page and "It runs" in page
            with client.stream("GET", "/compare/live/stream") as stream:
                assert stream.headers["content-type"].startswith("text/event-stream")
                lines = stream.iter_lines()
                assert "6 of 10 training runs are done" in _until(lines, "data: <p>")
                write_record(folder / "outcome.json", build_outcome())
                assert "It is finished" in _until(lines, "data: <p>")
                assert _until(lines, "event: end")
        assert "It runs" not in client.get("/compare/live").text


def _until(lines: Iterator[str], begin: str) -> str:
    return next(line for line in lines if line.startswith(begin))


def test_a_damaged_one_is_listed_as_such(tmp_path: Path) -> None:
    folder = made(tmp_path / "comparisons" / "bad", 1)
    (folder / "comparison.json").write_text(json.dumps({"version": 1}))
    with open_house(tmp_path) as house, house.client() as client:
        assert "damaged" in client.get("/compare").text
        assert client.get("/compare/bad").status_code == 404


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    made(tmp_path / "elsewhere" / "secret", 1)
    (tmp_path / "root" / "comparisons").mkdir(parents=True)
    (tmp_path / "root" / "comparisons" / "secret").symlink_to(tmp_path / "elsewhere" / "secret")
    with open_house(tmp_path / "root") as house, house.client() as client:
        assert "secret" not in client.get("/compare").text
        assert client.get("/compare/secret").status_code == 404
