"""One PostgreSQL for all tests that want one; each takes a database of its own in it."""

from collections.abc import Iterator

import pytest

from tests.serve.databases import postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with postgres() as url:
        yield url
