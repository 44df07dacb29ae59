"""A real browser on the app: headless Chromium at a desk's or a phone's width, light or dark, with what axe finds."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.app.house import House

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DESK, PHONE = 1200, 390


@contextmanager
def opened(house: House, *, width: int = DESK, dark: bool = False, scripts: bool = True) -> Iterator[Any]:
    """A page that was let in; what it writes to the console is a fault. Skips where there is no Chromium."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
            reduced_motion="reduce",
        )
        context.set_default_timeout(60_000)
        page, said = context.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{house.url}/data?token={house.token}")
        yield page
        browser.close()
    # A page that answers with an error status is told of by the browser, and is meant.
    assert [text for text in said if not re.search(r"status of 4\d\d", text)] == []


def faults(page: Any) -> list[str]:
    """What axe finds on the page that is serious or critical, a line each."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    grave = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    return [f"{fault['id']}: {node['html'][:200]}" for fault in grave for node in fault["nodes"]]


def too_wide(page: Any) -> bool:
    """Does the page scroll sideways?"""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


def require_sound(house: House, path: str, *, before: Any = None) -> None:
    """Raises AssertionError where axe has a grave fault, light or dark, or the page is too wide for a phone.

    Args:
        before: called with the page once it is open.
    """
    for width, dark in ((PHONE, False), (DESK, True)):
        with opened(house, width=width, dark=dark) as page:
            page.goto(house.url + path)
            if before:
                before(page)
            assert faults(page) == [] and not too_wide(page), (path, width)
