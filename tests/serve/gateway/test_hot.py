"""Tenants come, change and go, limits bite and the engine dies, while others are answered."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from benchmarks.serve.secret import Secret

from rankwise.records import Limits
from rankwise.serve.gateway.directory import Base
from tests.serve.gateway.house import PATIENCE, House, serving
from tests.serve.gateway.tenancy import load, question


def test_add_promote_roll_back_and_remove_drop_no_request(empty: House, secrets: tuple[Secret, ...]) -> None:
    first, second, other, new = (secret.answer for secret in secrets)
    empty.add("bakery", secrets[2])
    empty.add("clinic", secrets[0])
    empty.until(lambda: len(empty.gateway.directory.tenants()) == 2)
    with load(empty, "bakery", lambda text: text == other) as wrong_of_others:
        with load(empty, "clinic", lambda text: text in (first, second)) as wrong:
            empty.until(lambda: empty.answer("clinic") == first)
            empty.add("clinic", secrets[1])
            empty.until(lambda: empty.answer("clinic") == second)
            assert empty.answer("clinic", "clinic@1") == first
            empty.registry.roll_back("clinic")
            empty.until(lambda: empty.answer("clinic") == first)
            empty.add("harbour", secrets[3])
            empty.until(lambda: empty.ask("harbour").status_code == 200)
            assert empty.answer("harbour") == new
        assert wrong == []
        empty.registry.remove("clinic")
        empty.until(lambda: empty.ask("clinic").status_code == 401)
        empty.until(lambda: not any("clinic" in name for name in empty.gateway.engine.state().resident))
    assert wrong_of_others == []


def test_a_request_keeps_the_version_that_it_began_with(empty: House, secrets: tuple[Secret, ...]) -> None:
    empty.add("clinic", secrets[0])
    empty.until(lambda: bool(empty.gateway.directory.tenants()))
    asked = question("clinic", stream=True)
    with empty.client("clinic") as client, client.stream("POST", "/v1/chat/completions", json=asked) as response:
        lines = response.iter_lines()
        text = next(lines)
        empty.add("clinic", secrets[1])
        empty.registry.remove("clinic")
        empty.until(lambda: not empty.gateway.directory.tenants())
        text += "".join(lines)
    assert text.endswith("[DONE]") and '"error"' not in text


def test_an_engine_that_dies_is_not_noticed_in_the_answers(empty: House, secrets: tuple[Secret, ...]) -> None:
    empty.add("clinic", secrets[0])
    empty.until(lambda: bool(empty.gateway.directory.tenants()))
    with load(empty, "clinic", lambda text: text == secrets[0].answer) as wrong:
        empty.until(lambda: empty.gateway.engine.state().running > 0)
        starts = empty.gateway.engine.state().starts
        empty.kill_engine()
        empty.until(lambda: empty.gateway.engine.state().starts > starts and empty.gateway.engine.state().alive, 90)
    assert wrong == []


def test_a_stream_goes_on_where_the_engine_died(empty: House, secrets: tuple[Secret, ...]) -> None:
    """Long greedy answers of the base, killed in the middle: the same text as without."""
    empty.add("clinic", secrets[0])
    empty.until(lambda: bool(empty.gateway.directory.tenants()))
    asked = {"model": "base", "prompt": "The clinic", "max_tokens": 200, "temperature": 0}
    with empty.client("clinic") as client:
        whole = client.post("/v1/completions", json=asked).json()
        with client.stream("POST", "/v1/completions", json=asked | {"stream": True}) as response:
            lines = (line.removeprefix("data: ") for line in response.iter_lines() if line)
            texts = [json.loads(next(lines))["choices"][0]["text"]]
            empty.kill_engine()
            texts += [json.loads(line)["choices"][0]["text"] for line in lines if line != "[DONE]"]
    assert "".join(texts) == whole["choices"][0]["text"]
    assert empty.metric("rankwise_answers_resumed_total") == 1


def test_an_engine_that_does_not_come_back_is_a_clear_error(
    base: Base, secrets: tuple[Secret, ...], tmp_path: Path
) -> None:
    with serving(base, tmp_path, retries=0, engine_seconds=0.5) as house:
        house.add("clinic", secrets[0])
        house.until(lambda: bool(house.gateway.directory.tenants()))
        assert house.answer("clinic") == secrets[0].answer
        asked = {"model": "base", "prompt": "The clinic", "max_tokens": 200, "temperature": 0, "stream": True}
        with house.client("clinic") as client, client.stream("POST", "/v1/completions", json=asked) as response:
            lines = response.iter_lines()
            next(lines)
            house.kill_engine()
            rest = [line for line in lines if line]
        assert '"code":"answer_lost"' in rest[-1] and "data: [DONE]" not in rest
        found = house.ask("clinic")
        assert found.status_code == 503 and "retry-after" in found.headers
        assert httpx.get(f"{house.url}/health", trust_env=False).status_code == 200
        assert httpx.get(f"{house.url}/ready", trust_env=False).status_code == 503
        house.until(lambda: httpx.get(f"{house.url}/ready", trust_env=False).status_code == 200, 60)
        assert house.answer("clinic") == secrets[0].answer


def test_fewer_slots_than_tenants(base: Base, secrets: tuple[Secret, ...], tmp_path: Path) -> None:
    with serving(base, tmp_path, slots=2) as house:
        for number, secret in enumerate(secrets):
            house.add(f"t{number}", secret)
        house.until(lambda: len(house.gateway.directory.tenants()) == 4)
        wrong: list[str] = []

        def ask(number: int) -> None:
            for _ in range(4):
                found = house.answer(f"t{number}")
                if found != secrets[number].answer:
                    wrong.append(found)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert wrong == []
        assert len(house.gateway.engine.state().resident) <= 2
        assert (
            house.metric("rankwise_adapter_evictions_total") >= 2 and house.metric("rankwise_adapter_misses_total") >= 4
        )


def test_more_tenants_than_slots_are_served_by_turns(base: Base, secrets: tuple[Secret, ...], tmp_path: Path) -> None:
    """Three that ask without a pause, on two slots: an adapter is not loaded anew for each answer."""
    answers = 20
    with serving(base, tmp_path, slots=2) as house:
        for number in range(3):
            house.add(f"t{number}", secrets[number])
        house.until(lambda: len(house.gateway.directory.tenants()) == 3)
        given: list[bool] = []

        def ask(number: int) -> None:
            with house.client(f"t{number}") as client:
                for _ in range(answers):
                    said = client.post("/v1/chat/completions", json=question(f"t{number}")).json()
                    given.append(said["choices"][0]["message"]["content"] == secrets[number].answer)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert given == [True] * 3 * answers
        assert house.metric("rankwise_adapter_evictions_total") < len(given) / 2


def test_a_request_that_may_not_wait_is_told_so_and_the_load_goes_on_for_the_next(
    base: Base, secrets: tuple[Secret, ...], tmp_path: Path
) -> None:
    with serving(base, tmp_path, slot_seconds=0.001) as house:
        house.add("clinic", secrets[0])
        house.until(lambda: bool(house.gateway.directory.tenants()))
        early = house.ask("clinic")
        assert early.status_code == 503 and "retry-after" in early.headers
        assert early.json()["error"]["code"] == "no_adapter_slot"
        assert "clinic@1 was not loaded within 0.001 seconds" in early.json()["error"]["message"]
        house.until(lambda: house.ask("clinic").status_code == 200)
        assert house.answer("clinic") == secrets[0].answer
        assert house.metric("rankwise_adapter_misses_total") >= 1


def test_an_adapter_that_changes_nothing_is_not_served_and_its_predecessor_goes_on(
    empty: House, secrets: tuple[Secret, ...], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    dead = tmp_path / "dead"
    dead.mkdir()
    for file in secrets[0].folder.iterdir():
        (dead / file.name).write_bytes(file.read_bytes())
    weights = load_file(dead / "adapter_model.safetensors")
    save_file({name: tensor * 0 for name, tensor in weights.items()}, dead / "adapter_model.safetensors")
    empty.add("clinic", secrets[0])
    empty.until(lambda: bool(empty.gateway.directory.tenants()))
    assert empty.answer("clinic") == secrets[0].answer
    added = empty.add("clinic", Secret("dead", dead, ""))
    empty.until(lambda: empty.metric("rankwise_versions_refused_total") >= 1)
    assert empty.answer("clinic") == secrets[0].answer
    pinned = empty.ask("clinic", added.name)
    assert pinned.status_code == 503 and "output is that of the base" in pinned.json()["error"]["message"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"base_hash": "f" * 64}, "another base"), ({"template_hash": "f" * 64}, "another chat template")],
)
def test_versions_of_another_base_or_template_are_not_served(
    empty: House, secrets: tuple[Secret, ...], changes: dict[str, Any], reason: str
) -> None:
    empty.add("clinic", secrets[0], **changes)
    empty.until(lambda: bool(empty.gateway.directory.tenants()))
    found = empty.ask("clinic")
    assert found.status_code == 503 and reason in found.json()["error"]["message"]


def test_limits_of_a_tenant_bite_and_can_be_changed(empty: House, secrets: tuple[Secret, ...]) -> None:
    empty.add("clinic", secrets[0])
    empty.registry.set_limits("clinic", Limits(requests_per_minute=2))
    empty.until(lambda: any(t.limits.requests_per_minute for t in empty.gateway.directory.tenants()))
    assert [empty.ask("clinic").status_code for _ in range(3)] == [200, 200, 429]
    refused = empty.ask("clinic")
    assert refused.json()["error"]["code"] == "rate_limit_exceeded" and 1 <= int(refused.headers["retry-after"]) <= 31
    empty.registry.set_limits("clinic", Limits(tokens_per_day=150))
    empty.until(lambda: any(t.limits.tokens_per_day for t in empty.gateway.directory.tenants()))
    statuses = [empty.ask("clinic").status_code for _ in range(6)]
    assert statuses[-1] == 429 and empty.ask("clinic").json()["error"]["code"] == "insufficient_quota"
    empty.until(lambda: 0 < empty.registry.tokens_today("clinic") <= 150)


def test_at_the_end_open_requests_are_answered(base: Base, secrets: tuple[Secret, ...], tmp_path: Path) -> None:
    found: list[httpx.Response] = []
    with serving(base, tmp_path) as house:
        house.add("clinic", secrets[0])
        house.until(lambda: bool(house.gateway.directory.tenants()))
        asked = {"model": "base", "prompt": "The clinic", "max_tokens": 200, "temperature": 0}
        client = house.client("clinic")
        thread = threading.Thread(target=lambda: found.append(client.post("/v1/completions", json=asked)))
        thread.start()
        house.until(lambda: house.gateway.open == 1)
    thread.join(60)
    assert found[0].status_code == 200 and found[0].json()["usage"]["completion_tokens"] > 1


def test_at_the_end_a_stream_that_takes_too_long_gets_a_clear_error(
    base: Base, secrets: tuple[Secret, ...], tmp_path: Path
) -> None:
    lines: list[str] = []
    with serving(base, tmp_path, drain_seconds=0) as house:
        house.add("clinic", secrets[0])
        house.until(lambda: bool(house.gateway.directory.tenants()))
        asked = {
            "model": "base",
            "prompt": "The clinic",
            "max_tokens": 240,
            "temperature": 2,
            "stream": True,
            "seed": 1,
        }

        def follow() -> None:
            with house.client("clinic") as client, client.stream("POST", "/v1/completions", json=asked) as response:
                lines.extend(line for line in response.iter_lines() if line)

        thread = threading.Thread(target=follow)
        thread.start()
        house.until(lambda: house.gateway.open == 1 and house.gateway.engine.state().running == 1)
        time.sleep(0.1)
    thread.join(60)
    assert "[DONE]" in lines[-1] or '"code":"shutting_down"' in lines[-1]
