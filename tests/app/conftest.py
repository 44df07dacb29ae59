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
def house(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The app, with a cache of its own that all tests fill together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKWISE_CACHE", str(tmp_path_factory.mktemp("cache")))
        with open_house(root) as house:
            yield house


@pytest.fixture
def client(house: House) -> Iterator[httpx.Client]:
    with house.client() as client:
        yield client


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser
