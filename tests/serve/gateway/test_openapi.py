"""schemathesis on our own OpenAPI document: thousands of requests that nobody would write, and no internal error."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from benchmarks.serve.secret import Secret
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from rankwise.serve.gateway.directory import Base
from tests.serve.gateway.house import PATIENCE, House, serving

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
ANSWERS = ("/v1/chat/completions", "/v1/completions")
# So that a part of the cases reaches the engine and comes back from it soon.
DEEP = {"model": {"const": "clinic"}, "max_tokens": {"type": "integer", "minimum": 1, "maximum": 3}}


@pytest.fixture
def small(base: Base, secrets: tuple[Secret, ...], tmp_path: Path) -> Iterator[House]:
    """A server whose answers are short, so that it is the gateway that is tried."""
    with serving(base, tmp_path, max_choices=2, max_length=64) as house:
        house.add("clinic", secrets[0])
        house.until(lambda: bool(house.gateway.directory.tenants()))
        yield house


def tried(house: House, cases: int) -> Counter[int]:
    """How often each status came, over `cases` valid and as many invalid requests of each route: with a key and an
    existing model, with a key, and without one.
    """
    found: Counter[int] = Counter()
    key = {"authorization": f"Bearer {house.keys['clinic']}"}
    with house.client() as client:
        document = client.get("/openapi.json").json()
        assert client.get("/health").status_code == 200
    for headers, deep in ((key, True), (key, False), ({}, False)):
        schema = schemathesis.openapi.from_dict(_deep(document) if deep else document)
        for place, path in enumerate((*ANSWERS, "/v1/models/{model}")):
            operation = schema[path]["GET" if "{" in path else "POST"]
            for mode in MODES:
                _try(operation.as_strategy(generation_mode=mode), house.url, headers, cases, place, found)
    return found


def _deep(document: Any) -> Any:
    import copy

    changed = copy.deepcopy(document)
    for route in ANSWERS:
        body = changed["paths"][route]["post"]["requestBody"]["content"]["application/json"]["schema"]
        body["properties"] |= DEEP
        body["required"] = [*body["required"], "max_tokens"]
    return changed


def _try(
    strategy: st.SearchStrategy[Any], url: str, headers: dict[str, str], cases: int, start: int, found: Counter[int]
) -> None:
    @seed(start)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def one(case: Any) -> None:
        response = case.call(base_url=url, headers=headers, timeout=PATIENCE)
        found[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    one()


def test_requests_that_nobody_would_write(small: House) -> None:
    found = tried(small, 8)
    assert found[200] and found[400] and found[401] and found[404] and found.total() >= 100
    assert not any(status >= 500 for status in found)


@pytest.mark.prove
def test_two_thousand_requests_that_nobody_would_write(small: House) -> None:
    found = tried(small, 150)
    assert found.total() >= 2000, found
    assert found[200] >= 50 and not any(status >= 500 for status in found), found
    assert small.gateway.open == 0
