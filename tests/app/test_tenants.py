"""The page Tenants in a browser: versions and gates, promote, roll back, what is refused and why."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser

from rankwise import api
from rankwise.serve.registry import Registry
from tests.app.browser import hold_against_golden, open_page, require_sound
from tests.app.house import House, open_house
from tests.training import toy_model, trained


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Two versions of a proven run that passed, and one of which facts were required that nobody measured."""
    root = tmp_path_factory.mktemp("root")
    run = trained(root / "runs", toy_model(root / "model"))
    api.evaluate(run)
    assert api.verify(run)[1] is not None
    url, files = str(root / "registry.sqlite"), api.adapter_store(str(root / "adapters"))
    known = Registry(url)
    for require in (None, None, ["facts>=0.6"]):
        api.add_tenant("clinic", run, known, files, require)
    api.add_tenant("a.b_c-d", run, known, files)
    with open_house(root, url) as house:
        yield house


def known(house: House) -> Registry:
    registry: Registry = house.app.state.registry()
    return registry


def test_promote_and_roll_back(browser: Browser, house: House) -> None:
    with open_page(browser, house, "/tenants") as page:
        page.click("text=clinic")
        assert page.inner_text("h1") == "clinic: no version answers" and page.is_disabled("text=Roll back")
        page.click("text=Promote version 1")
        page.wait_for_selector("h1:has-text('clinic: version 1 answers')")
        assert page.is_disabled("text=Roll back")
        page.focus("text=Promote version 2")
        page.keyboard.press("Enter")
        page.wait_for_selector("h1:has-text('clinic: version 2 answers')")
        assert known(house).tenant("clinic").active == 2
        page.click("text=Roll back to version 1")
        page.wait_for_selector("h1:has-text('clinic: version 1 answers')")
        assert "rolled back to version 1, in the place of version 2" in page.inner_text("ol.log")
        hold_against_golden(page, "tenant", without="time, article .source")
    assert known(house).tenant("clinic").active == 1
    require_sound(browser, house, "/tenants/clinic")
    require_sound(browser, house, "/tenants")


def test_a_version_that_missed_its_gate_says_why_and_is_refused(house: House, client: httpx.Client) -> None:
    text = client.get("/tenants/clinic").text
    assert "It cannot be promoted: facts is not met." in text and "Promote version 3" not in text
    active = known(house).tenant("clinic").active
    answer = client.post("/tenants/clinic/promote", data={"version": 3})
    assert answer.status_code == 409 and "has not passed its gate" in answer.text
    assert known(house).tenant("clinic").active == active


def test_it_works_without_scripts(browser: Browser, house: House) -> None:
    with open_page(browser, house, "/tenants/a.b_c-d", java_script_enabled=False) as page:
        assert page.inner_text("h1") == "a.b_c-d: no version answers"


def test_what_cannot_be_is_refused(house: House, client: httpx.Client) -> None:
    assert client.post("/tenants/a.b_c-d/rollback").status_code == 409
    assert client.post("/tenants/clinic/promote", data={"version": 99}).status_code in (400, 404)
    assert client.post("/tenants/clinic/promote", data={"version": "x"}).status_code == 422
    assert client.post("/tenants/nobody/promote", data={"version": 1}).status_code == 404
    assert client.get("/tenants/<b>nobody").status_code == 404
    assert "<b>nobody" not in client.get("/tenants/<b>nobody").text
    assert client.post("/tenants/clinic/rollback", headers={"origin": "http://evil.example"}).status_code == 403


def test_nobody_is_served_yet(tmp_path: Path) -> None:
    with open_house(tmp_path, str(tmp_path / "r.sqlite")) as house, house.client() as client:
        text = client.get("/tenants").text
        assert "Nobody is served yet" in text and "r.sqlite" in text
