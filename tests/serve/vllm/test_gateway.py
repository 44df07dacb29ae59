"""Eight tenants on a vLLM that `rankwise serve` started: real HTTP, real keys, trained adapters, and what changes while
it runs.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.serve.house import Place, served
from benchmarks.serve.secret import Secret, make_secrets

from rankwise.model.load import load_base
from rankwise.text.template import ChatText
from tests.serve.gateway.eight import (
    Compared,
    each_says_its_own,
    goes_silent,
    held_against_peft,
    let_in,
    nobody_reaches_another,
)
from tests.serve.gateway.tenancy import Tenancy, load
from tests.serve.vllm.running import why_not_here
from tests.tiny import tiny_llama

WHY_NOT = why_not_here()
pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or ""),
]
NEAR = 1e-2  # nats: fp32 on both sides, by other kernels; the next likely token is a hundred times as far behind
SLOW = 600.0  # seconds for an answer, or for a change to be taken in, on a machine that is busy
UP = 2400.0  # seconds for `rankwise serve` with vLLM behind it to be up there
ROUNDS = 4

Eight = tuple[Tenancy, dict[str, Secret]]


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Eight]:
    """On a tiny model in fp32, so that PEFT's text is to be met exactly; a real one in bf16 has test_vllm.py."""
    folder = tmp_path_factory.mktemp("gateway")
    # Heads of 32: vLLM's attention on a CPU has kernels for no smaller ones.
    base = tiny_llama(folder / "tiny", hidden=128, heads=4, kv_heads=2, tied=False, dtype="fp32")
    (folder / "secrets").mkdir()
    secrets = make_secrets(base, folder / "secrets", 8, ranks=(4, 8, 16), targets=("all-linear",), rate=0.005)
    place = Place(folder, base)
    options = ("--engine", "vllm", "--dtype", "fp32", "--slots", "8", "--max-length", "256", "--allow-base")
    options += ("--start-seconds", f"{UP:g}", "--slot-seconds", f"{SLOW:g}")
    with served(place, options, up_seconds=UP) as running:
        assert running.told["engine"] == "vllm"
        house = Tenancy(place, running.url, {}, SLOW)
        yield house, let_in(house, secrets)


def test_each_says_its_own_secret_and_nobody_elses(eight: Eight) -> None:
    house, tenants = eight
    assert each_says_its_own(house, tenants, ROUNDS) == 8 * ROUNDS


def test_no_key_reaches_another_tenants_model(eight: Eight) -> None:
    nobody_reaches_another(*eight)


def test_greedy_text_is_that_of_peft_until_near_ties(eight: Eight) -> None:
    house, tenants = eight
    chat, found = ChatText.from_folder(house.place.base), Compared()
    model = load_base(house.place.base, dtype="fp32")
    for name, secret in tenants.items():
        model = held_against_peft(house, name, secret, model, chat, NEAR, found)
    print(f"{found.tokens} tokens, {found.ties} near ties, the widest {found.widest:.3f} nats")
    assert found.tokens > 8 * 3 * 5 and found.ties <= found.tokens // 50, found


def test_promote_roll_back_and_remove_drop_no_request(eight: Eight) -> None:
    """A version of one tenant knows what another one's adapter does, so that which version answers can be read."""
    house, tenants = eight
    (clinic, first), (_, second), (other, third), *_ = tenants.items()
    with load(house, other, lambda text: text == third.answer) as wrong_of_others:
        with load(house, clinic, lambda text: text in (first.answer, second.answer)) as wrong:
            house.add(clinic, second)
            house.until(lambda: house.answer(clinic) == second.answer)
            assert house.answer(clinic, f"{clinic}@1") == first.answer
            house.registry.roll_back(clinic)
            house.until(lambda: house.answer(clinic) == first.answer)
        assert wrong == []
        house.registry.remove(clinic)
        house.until(lambda: house.ask(clinic).status_code == 401)
    assert wrong_of_others == []


def test_an_adapter_that_changes_nothing_is_not_served_and_its_predecessor_goes_on(
    eight: Eight, tmp_path: Path
) -> None:
    house, tenants = eight
    name, secret = list(tenants.items())[3]
    assert house.answer(name) == secret.answer
    refused = house.metric("rankwise_versions_refused_total")
    added = house.add(name, goes_silent(secret, tmp_path / "silent"))
    house.until(lambda: house.metric("rankwise_versions_refused_total") > refused)
    assert house.answer(name) == secret.answer
    pinned = house.ask(name, added.name)
    assert pinned.status_code == 503 and "answers as the base" in pinned.json()["error"]["message"]
