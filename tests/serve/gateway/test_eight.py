"""Eight tenants on the embedded engine, through the gateway: each its own secret, and PEFT's text."""

from collections.abc import Iterator

import pytest
from benchmarks.serve.secret import Secret, make_secrets

from rankwise.model.load import load_base
from rankwise.serve.gateway.directory import Base
from tests.serve.gateway.eight import Compared, each_says_its_own, held_against_peft, let_in, nobody_reaches_another
from tests.serve.gateway.house import House, serving

NEAR = 1e-3  # nats: fp32 on both sides
ROUNDS = 4

Eight = tuple[House, dict[str, Secret]]


@pytest.fixture(scope="module")
def eight(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Eight]:
    """Adapters of different ranks, on different layers."""
    targets = ("all-linear", ("q_proj", "v_proj"), ("gate_proj", "up_proj", "down_proj"))
    place = tmp_path_factory.mktemp("eight")
    (place / "secrets").mkdir()
    secrets = make_secrets(base.folder, place / "secrets", 8, ranks=(4, 8, 16), targets=targets, rate=0.02)
    with serving(base, place) as house:
        yield house, let_in(house, secrets)


def test_each_says_its_own_secret_and_nobody_elses(eight: Eight) -> None:
    house, tenants = eight
    assert each_says_its_own(house, tenants, ROUNDS) == 8 * ROUNDS
    assert len(house.gateway.engine.state().resident) == 8


def test_no_key_reaches_another_tenants_model(eight: Eight) -> None:
    nobody_reaches_another(*eight)


def test_greedy_text_is_that_of_peft_alone(eight: Eight, base: Base) -> None:
    house, tenants = eight
    model, found = load_base(base.folder, dtype="fp32"), Compared()
    for name, secret in tenants.items():
        model = held_against_peft(house, name, secret, model, base.chat, NEAR, found)
    assert found.tokens > 8 * 3 * 5 and found.ties == 0, found
