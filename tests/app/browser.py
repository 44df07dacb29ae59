"""A browser for the tests: the system's Chromium by Playwright, axe, and screenshots held against golden ones.

How a screenshot is judged: both are made grey and shrunk to cells of 8 x 8 pixels, so that one pixel of a letter's edge
says nothing. A cell differs when its mean differs by more than 24 of 255; more than 1 % of cells, or another size, is
a mismatch. Then `build/ui-diff/NAME.html` has golden, new and differing cells side by side. Where the system's font is
not the one that the golden ones were made with, every line breaks elsewhere, and nothing is compared.
`RANKWISE_UPDATE_GOLDEN=1` writes new ones.
"""

import base64
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, sync_playwright

from tests.app.house import House

CHROMIUM = Path("/usr/bin/chromium")
GOLDEN = Path(__file__).parents[1] / "golden" / "ui"
REPORTS = Path(__file__).parents[2] / "build" / "ui-diff"
FONT = "DejaVu Sans"
CELL = 8  # pixels
DIFFERS = 24  # of 255, between the means of two cells
ALLOWED = 0.01  # of all cells
WIDE, PHONE = (1280, 900), (390, 844)  # pixels
PATIENCE = 240_000  # ms; machines are shared, and a first plan traces


@contextmanager
def open_browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Browser, house: House, path: str, **options: Any) -> Iterator[Page]:
    """A page of the app that was entered with its token; a script that fails, or is kept from running, is a failure."""
    size = options.pop("size", WIDE)
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
    try:
        page.goto(f"{house.url}{path}?token={house.token}")
        yield page
        assert not faults
    finally:
        context.close()


def grave_faults(page: Page) -> list[str]:
    """What axe finds serious or critical, each with the first element that has it."""
    found = Axe().run(page).response["violations"]
    grave = [v for v in found if v["impact"] in ("serious", "critical")]
    return [f"{v['id']} at {v['nodes'][0]['target']}: {v['nodes'][0]['failureSummary']}" for v in grave]


def too_wide(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def require_sound(browser: Browser, house: House, path: str, before: Callable[[Page], object] | None = None) -> None:
    """Raises AssertionError where axe has a grave fault or the page is too wide, on a phone and dark on a desk.

    Args:
        before: called with the page once it is open.
    """
    for size, scheme in ((PHONE, "light"), (WIDE, "dark")):
        with open_page(browser, house, path, size=size, color_scheme=scheme) as page:
            if before:
                before(page)
            assert grave_faults(page) == [] and too_wide(page) <= 0, (path, size)


def hold_against_golden(page: Page, name: str, *, without: str = "footer") -> None:
    """What the window shows now, without what a clock says. See the top of this file.

    Args:
        without: a CSS selector of what is another in each run of the tests.
    """
    hidden = f"[data-clock], footer, {without} {{ visibility: hidden }}"
    page.add_style_tag(content=f"{hidden} * {{ caret-color: transparent !important }}")
    shot = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    path = GOLDEN / f"{name}.png"
    if os.environ.get("RANKWISE_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        shot.quantize(32, dither=Image.Dither.NONE).save(path, optimize=True)
    if (font := _font()) != FONT:
        pytest.skip(f"the golden screenshots are set in {FONT}, and system-ui is {font or 'unknown'} here")
    golden = Image.open(path).convert("RGB")
    share, cells = difference(golden, shot)
    if share > ALLOWED:
        pytest.fail(f"{name}: {share:.1%} of cells differ, see {_report(name, golden, shot, cells)}")


def difference(golden: Image.Image, shot: Image.Image) -> tuple[float, list[tuple[int, int]]]:
    """Share of cells that differ, and which (column, row)."""
    if golden.size != shot.size:
        return 1.0, []
    small = [np.asarray(_cells(image), dtype=int) for image in (golden, shot)]
    apart = np.abs(small[0] - small[1]) > DIFFERS
    return float(apart.mean()), [(int(x), int(y)) for y, x in np.argwhere(apart)]


def _cells(image: Image.Image) -> Image.Image:
    return image.convert("L").resize((image.width // CELL, image.height // CELL), Image.Resampling.BOX)


def _font() -> str:
    if shutil.which("fc-match") is None:
        return ""
    done = subprocess.run(["fc-match", "-f", "%{family[0]}", "system-ui"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _report(name: str, golden: Image.Image, shot: Image.Image, cells: list[tuple[int, int]]) -> Path:
    marked = shot.copy()
    pen = ImageDraw.Draw(marked)
    for x, y in cells:
        pen.rectangle((x * CELL, y * CELL, (x + 1) * CELL, (y + 1) * CELL), outline=(220, 0, 0))
    shown = "".join(
        f"<figure><figcaption>{what}</figcaption><img src='data:image/png;base64,{_png(image)}'></figure>"
        for what, image in (("golden", golden), ("new", shot), ("cells that differ", marked))
    )
    REPORTS.mkdir(parents=True, exist_ok=True)
    path = REPORTS / f"{name}.html"
    path.write_text(f"<!doctype html><title>{name}</title><h1>{name}</h1>{shown}", encoding="utf-8")
    return path


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
