"""The page Data in a browser: files that are handed over or chosen, sound and bad ones, and what must not happen."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route

from rankwise.app import data
from tests.app.browser import hold_against_golden, open_page, require_sound
from tests.app.house import House, open_house
from tests.training import toy_model, toy_rows, write_jsonl

# Playwright's own waits stand still while a page is on its way.
PRESS = """() => {
  const button = document.querySelector("button.first");
  button.click();
  const now = () => [button.textContent, button.disabled, button.form.getAttribute("aria-busy")];
  return new Promise((done) => setTimeout(() => done(now()), 200));
}"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    toy_model(root / "models" / "tiny")
    (root / "clinic").mkdir()
    write_jsonl(root / "clinic" / "good.jsonl", toy_rows(24))
    return root


@pytest.fixture(scope="module")
def house(root: Path) -> Iterator[House]:
    with open_house(root) as house:
        yield house


def handed(client: httpx.Client, name: str, content: bytes, model: str = "models/tiny") -> httpx.Response:
    return client.post("/data", data={"model": model, "chosen": ""}, files={"file": (name, content)})


def jsonl(folder: Path, rows: list[object]) -> Path:
    return write_jsonl(folder / "mine.jsonl", rows)


def test_a_sound_file_is_dropped_and_its_rows_are_shown(browser: Browser, house: House, tmp_path: Path) -> None:
    file = jsonl(tmp_path, toy_rows(24))
    with open_page(browser, house, "/data") as page:
        page.set_input_files("input[name=file]", file)
        page.fill("input[name=model]", "models/tiny")
        page.keyboard.press("Enter")  # from the field of the model: the form is sent by keyboard
        page.wait_for_selector("#audit")
        assert "mine.jsonl: No fault found." in page.inner_text("#audit")
        samples = page.locator("pre.sample")
        assert samples.count() == data.SAMPLES
        learned = samples.first.locator("mark.learned").inner_text()
        assert learned.endswith("<|im_end|>") and "<|im_start|>" not in learned
        before = page.evaluate("getComputedStyle(document.querySelector('mark.learned'), '::before').content")
        assert before == '"⟦"', "what is learned is marked by more than its colour"
        assert page.input_value("input[name=model]") == "models/tiny"


def test_the_form_says_that_it_is_at_work(browser: Browser, house: House) -> None:
    held: list[Route] = []
    with open_page(browser, house, "/data") as page:
        page.select_option("select[name=chosen]", "clinic/good.jsonl")
        page.fill("input[name=model]", "models/tiny")
        page.route("**/data", lambda route: held.append(route))  # the browser waits for its answer
        pressed = page.evaluate(PRESS)
        assert pressed == ["Looking at every row …", True, "true"]
        held[0].continue_()
        page.wait_for_selector("#audit")
        assert page.inner_text("button.first") == "Look at it" and page.locator("form[aria-busy]").count() == 0


def test_a_bad_file_gives_one_error_at_the_form_with_its_line(browser: Browser, house: House, tmp_path: Path) -> None:
    file = jsonl(tmp_path, toy_rows(2))
    file.write_text(file.read_text() + '{"messages": [\n')
    with open_page(browser, house, "/data") as page:
        page.set_input_files("input[name=file]", file)
        page.fill("input[name=model]", "models/tiny")
        page.click("button.first")
        page.wait_for_selector("[role=alert]")
        assert page.locator("[role=alert]").count() == 1 and "mine.jsonl:3: " in page.inner_text("[role=alert]")
        assert page.locator("#audit").count() == 0 and page.locator("form input[name=file]").count() == 1


def test_rows_with_faults_name_their_lines(client: httpx.Client, tmp_path: Path) -> None:
    bad = [*toy_rows(20), {"messages": [{"role": "user", "content": "<script>alert(1)</script>"}]}]
    answer = handed(client, "<img src=x>.jsonl", jsonl(tmp_path, bad).read_bytes())
    assert answer.status_code == 200 and "1 fault: training on these rows is refused." in answer.text
    assert re.search(r'class="source">line 21; of 21 rows', answer.text)
    assert "<script>alert" not in answer.text and "<img src" not in answer.text and "&lt;img src=x&gt;" in answer.text


def test_a_file_of_this_folder_is_chosen_without_scripts(browser: Browser, house: House) -> None:
    with open_page(browser, house, "/data", java_script_enabled=False) as page:
        page.select_option("select[name=chosen]", "clinic/good.jsonl")
        page.fill("input[name=model]", "models/tiny")
        page.click("button.first")
        assert "clinic/good.jsonl: No fault found." in page.inner_text("#audit")
        assert page.input_value("select[name=chosen]") == "clinic/good.jsonl"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"chosen": ""}, "no file was given"),
        ({"chosen": "../../etc/passwd"}, "there is no file of rows"),
        ({"chosen": "/etc/passwd"}, "there is no file of rows"),
        ({"chosen": "clinic/good.jsonl", "model": "/etc"}, "is no model that this page can take"),
        ({"chosen": "clinic/good.jsonl", "model": "../x"}, "is no model that this page can take"),
        ({"chosen": "clinic/good.jsonl", "model": "a\0b"}, "is no model that this page can take"),
        ({"chosen": "clinic/good.jsonl", "model": "models/none"}, "models/none"),
        ({}, "no file was given"),
    ],
)
def test_no_path_of_a_request_reaches_the_disk(client: httpx.Client, fields: dict[str, str], said: str) -> None:
    answer = client.post("/data", data=fields)
    assert answer.status_code == 400 and said in answer.text and answer.text.count('role="alert"') == 1


def test_nothing_of_a_file_is_left(client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    content = jsonl(tmp_path, toy_rows(24)).read_bytes()
    for name in ("../../up.jsonl", "..\\up.jsonl", "up.exe", "%2e%2e%2fup.jsonl"):
        answer = handed(client, name, content)
        assert answer.status_code == (400 if name == "up.exe" else 200), name
        assert "/tmp/" not in answer.text.replace(str(tmp_path.parent.parent), "")
    assert list((tmp_path / "tmp").iterdir()) == [] and not list(tmp_path.rglob("up.*"))


def test_what_is_too_large_is_refused_and_not_kept(
    browser: Browser, house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "LARGEST", 1_000_000)
    file = jsonl(tmp_path, toy_rows(9000))
    assert file.stat().st_size > 1_000_000
    with open_page(browser, house, "/data") as page:
        page.set_input_files("input[name=file]", file)
        page.click("button.first")
        page.wait_for_selector("[role=alert]")
        assert re.search(r"larger than the 1\sMB", page.inner_text("[role=alert]"))


def test_it_looks_as_it_did(browser: Browser, house: House) -> None:
    with open_page(browser, house, "/data") as page:
        page.select_option("select[name=chosen]", "clinic/good.jsonl")
        page.fill("input[name=model]", "models/tiny")
        page.click("button.first")
        page.wait_for_selector("#audit")
        page.wait_for_load_state()  # before its style is there, it stands elsewhere
        page.evaluate("document.getElementById('audit').scrollIntoView({behavior: 'instant'})")
        hold_against_golden(page, "data")


def test_the_page_is_for_everybody(browser: Browser, house: House) -> None:
    def looked(page: Page) -> None:
        page.select_option("select[name=chosen]", "clinic/good.jsonl")
        page.fill("input[name=model]", "models/tiny")
        page.click("button.first")
        page.wait_for_selector("#audit")

    require_sound(browser, house, "/data", before=looked)
