"""One tiny base and adapters that each know a secret, made once for all tests of the gateway; one server a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.serve.secret import Secret, make_secrets

from rankwise.serve.gateway.directory import Base
from tests.serve.gateway.house import House, base_of, serving
from tests.tiny import tiny_llama

TENANTS = ("clinic", "bakery", "harbour")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return base_of(tiny_llama(tmp_path_factory.mktemp("base") / "tiny", hidden=64, tied=False, dtype="fp32"))


@pytest.fixture(scope="session")
def secrets(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[Secret, ...]:
    """Four adapters; each answers the question with a sentence of its own."""
    return make_secrets(base.folder, tmp_path_factory.mktemp("secrets"), 4, targets=("all-linear",), rate=0.02)


@pytest.fixture(scope="module")
def house(base: Base, secrets: tuple[Secret, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server with three tenants."""
    with serving(base, tmp_path_factory.mktemp("house")) as house:
        for tenant, secret in zip(TENANTS, secrets, strict=False):
            house.add(tenant, secret)
        house.until(lambda: len(house.gateway.directory.tenants()) == len(TENANTS))
        yield house


@pytest.fixture
def empty(base: Base, tmp_path: Path) -> Iterator[House]:
    """A server of one test's own, without tenants."""
    with serving(base, tmp_path) as house:
        yield house
