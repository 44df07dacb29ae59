"""The page Runs in a browser, on runs that really train: the list, curves that move, a stop, the report."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page

from rankwise import api
from rankwise.store import Run
from tests.app.browser import PHONE, grave_faults, hold_against_golden, open_page, require_sound, too_wide
from tests.app.house import House, open_house
from tests.builders import plan
from tests.training import carry_out, end, reached, start, toy_job, toy_model, wait_for

ENDLESS = {"max_steps": 20_000, "save_steps": 20_000, "eval_steps": 20_000}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has finished, one that is only planned, one whose plan is damaged, and a job for another."""
    root = tmp_path_factory.mktemp("root")
    toy_model(root / "model")
    job = toy_job(root / "job", root / "model")
    carry_out(api.prepare(job, root / "runs" / "first", {}))
    Run(root / "planned").begin(plan())
    (root / "runs" / "broken").mkdir()
    (root / "runs" / "broken" / "plan.json").write_text("{")
    return root


@pytest.fixture(scope="module")
def house(root: Path) -> Iterator[House]:
    with open_house(root) as house:
        yield house


def test_the_list_has_every_run_with_its_state(browser: Browser, house: House, client: httpx.Client) -> None:
    text = client.get("/runs").text
    assert text.index("finished") > 0 and "planned" in text and "damaged" in text
    assert text.index(">planned</a>") < text.index(">first</a>"), "the newest first"
    assert 'href="/runs/first"' in text and 'href="/runs/broken"' not in text
    require_sound(browser, house, "/runs")


def test_the_list_follows_runs_that_come_and_go(browser: Browser, house: House, root: Path) -> None:
    with open_page(browser, house, "/runs") as page:
        page.wait_for_selector("text=first")
        Run(root / "newcomer").begin(plan())
        page.wait_for_selector("a:has-text('newcomer')")
        shutil.rmtree(root / "newcomer")
        page.wait_for_selector("a:has-text('newcomer')", state="detached")
        assert page.locator("a:has-text('first')").count() == 1


def test_an_empty_folder_says_what_makes_a_run(tmp_path: Path) -> None:
    with open_house(tmp_path) as house, house.client() as client:
        assert "There is no run in this folder yet" in client.get("/runs").text


def test_a_run_that_has_ended_is_told_whole(browser: Browser, house: House) -> None:
    with open_page(browser, house, "/runs/first") as page:
        page.wait_for_selector("[data-chart=curves-data] .main-svg")
        assert page.inner_text("h1") == "Finished: step 6 of 6."
        assert "rankwise chat" in page.inner_text("#run")
        figures = page.inner_text("dl.figures")
        assert "Peak" not in figures and "highest peak of the process; planned" in figures
        assert page.locator("text=Stop …").count() == 0 and page.locator("[data-stream]").count() == 0
        drawn = page.evaluate("document.querySelectorAll('.chart .main-svg').length")
        assert drawn >= 2 and page.locator("[data-no-chart]").count() == 0, "no empty chart"
    require_sound(browser, house, "/runs/first", before=lambda page: page.wait_for_selector(".chart .main-svg"))


def test_it_looks_as_it_did(browser: Browser, house: House) -> None:
    with open_page(browser, house, "/runs") as page:
        hold_against_golden(page, "runs", without="td[colspan]")
    with open_page(browser, house, "/runs/first") as page:
        page.wait_for_selector("[data-chart=curves-data] .main-svg")
        hold_against_golden(page, "run", without="dl.figures dd, #run > p")
    with open_page(browser, house, "/runs/first", size=PHONE, color_scheme="dark") as page:
        page.wait_for_selector("[data-chart=spectrum-data] .main-svg")
        page.evaluate("document.getElementById('spectra').scrollIntoView({behavior: 'instant'})")
        hold_against_golden(page, "run-phone-dark", without="dl.figures dd, #run > p")


def test_its_report_opens_with_its_charts_and_cannot_ask_the_app(browser: Browser, house: House) -> None:
    with open_page(browser, house, "/runs/first/report") as page:
        page.wait_for_selector(".chart .main-svg")
        assert "Rankwise run" in page.inner_text(".kicker")
        assert page.evaluate("window.origin") == "null"


def test_a_planned_run_says_how_it_is_started(client: httpx.Client) -> None:
    text = client.get("/runs/planned").text
    assert "Planned, not started." in text and "No step was taken yet." in text and "Stop …" not in text


@pytest.mark.parametrize("name", ["nothing", "..", "%2e%2e", "..%2f..%2fetc", "first%00", "model"])
def test_a_name_that_is_not_listed_is_no_run(client: httpx.Client, name: str) -> None:
    for path in (f"/runs/{name}/stream", f"/runs/{name}/report"):
        assert client.get(path).status_code == 404
    assert client.post(f"/runs/{name}/stop").status_code in (404, 405)


@pytest.mark.parametrize("name", ["first", "planned"])
def test_a_run_that_does_not_train_is_not_stopped(client: httpx.Client, root: Path, name: str) -> None:
    assert "This run is not running" in client.get(f"/runs/{name}/stop").text
    answer = client.post(f"/runs/{name}/stop")
    assert answer.status_code == 404 and "there is nothing to stop" in answer.text
    assert not list(root.rglob("stop"))


def test_another_site_cannot_stop_a_run(client: httpx.Client) -> None:
    assert client.post("/runs/first/stop", headers={"origin": "http://evil.example"}).status_code == 403


def test_a_run_that_trains_moves_by_itself_and_is_stopped(browser: Browser, house: House, root: Path) -> None:
    job = toy_job(root / "long", root / "model", train=ENDLESS)
    run = api.prepare(job, root / "runs" / "long run", {})
    process = start("train", run.folder, "--resume")
    try:
        wait_for(reached(run, 2), process, seconds=500)
        with open_page(browser, house, "/runs") as page:
            page.click("text=long run")
            page.wait_for_selector("[data-chart=curves-data] .main-svg")
            before = _step(page)
            page.wait_for_function(
                "before => Number(document.querySelector('h1').textContent.match(/step ([\\d,]+)/)[1].replace(',', ''))"
                " > before",
                arg=before,
            )
            assert "left" in page.inner_text("h1") and "resident now; planned" in page.inner_text("dl.figures")
            assert page.locator(".chart .main-svg").count() >= 2, "the curves are drawn again"
            page.focus("text=Stop …")
            page.keyboard.press("Enter")
            page.wait_for_selector("h1:has-text('Stop this run?')")
            assert "--resume" in page.inner_text("main") and run.state() == "running", "asked once"
            assert grave_faults(page) == [] and too_wide(page) <= 0
            page.keyboard.press("Tab")
            page.click("button:has-text('Stop it')")
            page.wait_for_selector("h1:has-text('Stopped at step')", timeout=120_000)
            assert "rankwise train" in page.inner_text("#run") and "--resume" in page.inner_text("#run")
            assert page.locator("text=Stop …").count() == 0, "the page was loaded anew when the run ended"
        process.communicate(timeout=120)
    finally:
        end(process)
    assert process.returncode == 1 and run.state() == "stopped" and list(run.checkpoints.glob("checkpoint-*"))


def _step(page: Page) -> int:
    return int(page.inner_text("h1").split("step ")[1].split(" ")[0].replace(",", ""))


def test_a_number_of_a_dead_process_stops_nobody(client: httpx.Client, root: Path) -> None:
    """The process that wrote its number is gone, and another one (this one) has the number now."""
    run = Run(root / "runs" / "first")
    (run.folder / ".lock").write_text(f"{os.getpid()}\n")
    assert client.post("/runs/first/stop").status_code == 404 and not run.stop_path.exists()


def test_the_stream_ends_with_the_run(client: httpx.Client) -> None:
    began = time.monotonic()
    with client.stream("GET", "/runs/first/stream") as answer:
        text = "".join(answer.iter_text())
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert text.count("event: end") == 1 and "data: <h1" in text and time.monotonic() - began < 60
