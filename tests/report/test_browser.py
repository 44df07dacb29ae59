"""Pages in a real Chromium: nothing is asked of a network, charts are drawn, printed pages are whole."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_page import WHOLE

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium is installed", allow_module_level=True)
NAMES = pytest.mark.parametrize("name", WHOLE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name, html in WHOLE.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in WHOLE}


@NAMES
def test_a_page_is_one_file_that_asks_nothing_of_a_network(name: str, files: dict[str, Path], browser: Any) -> None:
    assert files[name].stat().st_size < 5_000_000
    page = browser.new_page()
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(files[name].as_uri())
    drawn = "document.querySelectorAll('.js-plotly-plot').length"
    page.wait_for_function(f"{drawn} === document.querySelectorAll('[data-chart]').length")
    assert page.locator("[data-chart]").count() >= 2
    page.wait_for_timeout(200)
    own = [url for url in asked if url.startswith(("file:", "data:", "blob:"))]
    assert asked == own and faults == []
    page.close()


@NAMES
@pytest.mark.parametrize("width", [1100, 390])
def test_nothing_overlaps_and_nothing_is_cut(name: str, width: int, files: dict[str, Path], browser: Any) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(files[name].as_uri())
    page.wait_for_selector(".js-plotly-plot .main-svg")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    empty = page.evaluate(
        "marks => [...document.querySelectorAll('.js-plotly-plot')]"
        ".filter(p => p.checkVisibility({visibilityProperty: true}) && !p.querySelector(marks)).length",
        ".trace, .points path, .scatterlayer path, .heatmaplayer image",
    )
    assert empty == 0, "a chart without a mark"
    page.close()


@NAMES
def test_printed_it_is_whole(name: str, files: dict[str, Path], browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(files[name].as_uri())
    page.wait_for_selector(".js-plotly-plot .main-svg")
    page.emulate_media(media="print", color_scheme="dark")
    # Content that was skipped is laid out with one of the next frames, not with the change of the medium.
    closed = page.evaluate(
        """async () => {
            const closed = () => [...document.querySelectorAll('details > :not(summary)')]
                .filter(e => !e.checkVisibility({contentVisibilityAuto: true})).map(e => e.tagName);
            for (let frame = 0; frame < 100 && closed().length; frame++) await new Promise(r => setTimeout(r, 50));
            return closed();
        }"""
    )
    assert closed == [], "details stay closed on paper"
    lightness = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert lightness in ("rgba(0, 0, 0, 0)", "rgb(253, 253, 251)"), "a dark page would be printed"
    overflow = page.evaluate("[...document.querySelectorAll('.scroll')].map(e => getComputedStyle(e).overflowX)")
    assert set(overflow) == {"visible"}, "a table would be cut"
    page.pdf(path=str(tmp_path / "page.pdf"), format="A4")
    assert (tmp_path / "page.pdf").stat().st_size > 20_000
    page.close()
