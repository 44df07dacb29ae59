"""The pages in a real browser: by keyboard, live, without a script, in both schemes, on a phone, as they always looked.

What `axe` finds and how screenshots are judged stands in browser.py.
"""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from rankwise.app.fields import FIRST
from rankwise.app.planner import Planner, Wish
from tests.app.browser import PATIENCE, PHONE, WIDE, grave_faults, hold_against_golden, open_page, too_wide
from tests.app.house import House
from tests.app.test_decide import GIVEN, decided
from tests.report.plans import build_13b

expect.set_options(timeout=PATIENCE)
PAGES = ("/decide", "PLAN", "/compare", "/compare/clinic", "/compare/half", "/nothing")


@pytest.fixture(scope="module")
def known(house: House) -> Wish:
    """A plan made of records, which is the same everywhere."""
    plan = build_13b()
    job = {
        "model": "llama-2-13b",
        "data.examples": "200000",
        "hardware.count": "2",
        "variants": "5",
        "budget.usd": "550",
    }
    wish = Wish("known", "known", plan.job, FIRST | job, state="done", plan=plan, seconds=0.5)
    wish.ended.set()
    planner: Planner = house.app.state.planner
    planner._wishes[wish.id] = wish
    return wish


@pytest.fixture(scope="module")
def warm(house: House) -> Iterator[None]:
    """The traces of the tiny model are remembered."""
    with house.client() as client:
        assert decided(client, GIVEN).status_code == 200
    yield


def address(path: str, known: Wish) -> str:
    return f"/decide/plans/{known.id}" if path == "PLAN" else path


def fill(page: Page, given: dict[str, str]) -> None:
    for key, value in given.items():
        field = page.locator(f'[id="{key}"]')
        if key in ("goal", "data.train"):
            field.select_option(value)
        elif key != "page":
            field.fill(value)


def wrong(page: Page, key: str) -> str:
    return page.locator(f'[id="wrong-{key}"]').inner_text()


def test_each_change_moves_the_call(house: House, browser: Browser, warm: None) -> None:
    with open_page(browser, house, "/decide") as page:
        fill(page, GIVEN)
        expect(page.locator("h2.verdict")).to_contain_text("tiny")
        expect(page.locator("#result .chart .main-svg").first).to_be_visible()
        assert page.locator("[data-no-chart]").count() == 0
        expect(page.locator("#result")).to_contain_text("for each of the 3 variants")
        expect(page).to_have_url(re.compile(r"/decide/plans/\w+$"))
        tenants = page.locator('[id="variants"]')
        tenants.fill("40")
        expect(page.locator("#result")).to_contain_text("for each of the 40 variants")
        expect(tenants).to_be_focused()
        page.reload()
        expect(tenants).to_have_value("40")
        expect(page.locator("#result")).to_contain_text("for each of the 40 variants")


def test_what_is_wrong_stands_at_its_field_until_it_is_mended(house: House, browser: Browser, warm: None) -> None:
    with open_page(browser, house, "/decide") as page:
        fill(page, GIVEN | {"hardware.count": "two"})
        count = page.locator('[id="hardware.count"]')
        expect(count).to_have_attribute("aria-invalid", "true")
        assert wrong(page, "hardware.count").startswith("'two' is no whole number.")
        assert "Expected: a whole number." in wrong(page, "hardware.count")
        assert grave_faults(page) == []
        count.fill("1")
        expect(page.locator("h2.verdict")).to_be_visible()
        assert count.get_attribute("aria-invalid") is None and wrong(page, "hardware.count") == ""


def test_it_works_by_keyboard_alone(house: House, browser: Browser, warm: None) -> None:
    with open_page(browser, house, "/decide") as page:
        focus = "document.activeElement.id || document.activeElement.textContent.trim()"
        page.keyboard.press("Tab")
        assert page.evaluate(focus) == "Skip to the content"
        seen = []
        while "goal" not in seen:
            page.keyboard.press("Tab")
            seen.append(page.evaluate(focus))
        assert seen == ["Rankwise", "Decide", "Data", "Runs", "Compare", "Tenants", "goal"]
        page.keyboard.press("t")  # task
        page.keyboard.press("Tab")
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type("tiny")
        page.keyboard.press("Enter")
        expect(page.locator("h2.verdict")).to_contain_text("tiny")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", "one sees where one is"


def test_it_works_without_a_script(house: House, browser: Browser, warm: None) -> None:
    with open_page(browser, house, "/decide", java_script_enabled=False) as page:
        fill(page, GIVEN)
        page.get_by_role("button", name="Decide").click()
        expect(page.locator("h2.verdict")).to_contain_text("tiny")
        expect(page.locator('[id="variants"]')).to_have_value("3")
        page.locator('[id="variants"]').fill("none")
        page.get_by_role("button", name="Decide").click()
        expect(page.locator('[id="wrong-variants"]')).to_contain_text("'none' is no whole number")


def test_the_job_can_be_copied(house: House, browser: Browser, known: Wish) -> None:
    with open_page(browser, house, address("PLAN", known), permissions=["clipboard-read", "clipboard-write"]) as page:
        page.locator("#job-file summary").click()
        page.get_by_role("button", name="Copy job.yaml").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == page.locator("#job-yaml").inner_text()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download job.yaml").click()
        assert download.value.suggested_filename == "job.yaml"


def test_a_chosen_metric_shows_its_own_charts(house: House, browser: Browser) -> None:
    with open_page(browser, house, "/compare/clinic") as page:
        expect(page.locator(".chart .main-svg").first).to_be_visible()
        empty = [box for box in page.locator(".chart").all() if box.is_visible() and not box.locator(".trace").count()]
        assert not empty, "an empty chart"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_no_grave_fault(path: str, scheme: str, house: House, browser: Browser, known: Wish) -> None:
    with open_page(browser, house, address(path, known), color_scheme=scheme, bypass_csp=True) as page:
        assert grave_faults(page) == []


@pytest.mark.parametrize("path", PAGES)
def test_a_phone_shows_it_without_scrolling_sideways(path: str, house: House, browser: Browser, known: Wish) -> None:
    with open_page(browser, house, address(path, known), size=PHONE) as page:
        assert too_wide(page) == 0


SHOTS = {
    "decide-form": ("/decide", WIDE, "light"),
    "decide-plan": ("PLAN", WIDE, "light"),
    "decide-plan-phone-dark": ("PLAN#result", PHONE, "dark"),
    "compare-list": ("/compare", WIDE, "dark"),
    "compare-one": ("/compare/clinic", WIDE, "light"),
}


@pytest.mark.parametrize("name", SHOTS)
def test_it_looks_as_it_did(name: str, house: House, browser: Browser, known: Wish) -> None:
    path, size, scheme = SHOTS[name]
    path, _, part = path.partition("#")
    with open_page(browser, house, address(path, known), size=size, color_scheme=scheme) as page:
        if page.locator(".chart").count():
            expect(page.locator(".chart .main-svg").first).to_be_attached()
        if part:
            page.locator(f"#{part}").evaluate("element => element.scrollIntoView({ behavior: 'instant' })")
        hold_against_golden(page, name)
