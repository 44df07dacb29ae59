"""One folder with a tiny model, rows and two comparisons, the app over it, and a browser."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser

from tests.app.browser import open_browser
from tests.app.house import House, open_house
from tests.builders import write_job
from tests.test_comparisons import made
from tests.tiny import tiny_llama


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny/ (a model), rows.jsonl, comparisons/clinic (finished) and comparisons/half (it was stopped)."""
    folder = tmp_path_factory.mktemp("root")
    tiny_llama(folder / "tiny")
    write_job(folder).unlink()
    made(folder / "comparisons" / "clinic")
    made(folder / "comparisons" / "half", 7)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all tests of the app fill together."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def house(root: Path, cache: Path) -> Iterator[House]:
    """The app. Its cache is not that of the tests of other folders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKWISE_CACHE", str(cache))
        with open_house(root) as house:
            yield house


@pytest.fixture
def client(house: House) -> Iterator[httpx.Client]:
    with house.client() as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed with its module: while Playwright runs, no other test of the process can have an event loop."""
    with open_browser() as browser:
        yield browser
