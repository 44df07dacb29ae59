"""What strangers, other tenants and slow clients get: a refusal, nothing of anybody else's, and the server lives on."""

import contextlib
import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from benchmarks.serve.secret import Secret

from rankwise.serve.gateway.directory import Base
from tests.serve.gateway.house import MISSED, House, serving
from tests.serve.gateway.tenancy import question

CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def alive_afterwards(house: House, secrets: tuple[Secret, ...]) -> Iterator[None]:
    yield
    assert house.answer("clinic") == secrets[0].answer
    house.until(lambda: house.gateway.open == 0)


def test_the_model_of_another_tenant_cannot_be_told_from_none(house: House) -> None:
    said = []
    for model in ("bakery", "nobody", "bakery@1", "nobody@1"):
        found = house.ask("clinic", model)
        assert found.status_code == 404
        said.append(found.text.replace(model, "MODEL"))
    assert len(set(said)) == 1
    with house.client("clinic") as client:
        assert client.get("/v1/models/bakery").text == client.get("/v1/models/nobody").text.replace("nobody", "bakery")
        assert "bakery" not in client.get("/v1/models").text


def test_it_takes_no_longer_to_refuse_a_model_that_exists(house: House) -> None:
    def seconds(client: httpx.Client, model: str) -> float:
        began = time.perf_counter()
        client.post(CHAT, json=question(model))
        return time.perf_counter() - began

    with house.client("clinic") as client:
        rounds = [(seconds(client, "bakery"), seconds(client, "bakerx")) for _ in range(60)]
    there, missing = (sorted(times)[30] for times in zip(*rounds, strict=True))
    assert abs(there - missing) < 0.5 * max(there, missing), (there, missing)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Basic Y2xpbmljOmtleQ==",
        "Bearer rk-1-" + "0" * 64,
        "Bearer rk-1-' OR 1=1 --",
        "Bearer " + "k" * 5000,
        "Bearer rk-999999999-" + "f" * 64,
        "KEY",
    ],
)
def test_forged_and_missing_keys_get_one_answer(house: House, header: str | None) -> None:
    with house.client() as client:
        found = [
            client.request(method, path, headers={} if header is None else {"authorization": header}, json={"a": 1})
            for method, path in (("POST", CHAT), ("POST", "/v1/completions"), ("GET", "/v1/models"))
        ]
    assert {answer.status_code for answer in found} == {401} and len({answer.text for answer in found}) == 1
    assert found[0].headers["www-authenticate"] == "Bearer"


def test_two_keys_are_none(house: House) -> None:
    headers = [("authorization", f"Bearer {house.keys[tenant]}") for tenant in ("clinic", "bakery")]
    assert httpx.post(house.url + CHAT, headers=headers, json=question("clinic"), trust_env=False).status_code == 401


def test_a_revoked_key_is_none_within_a_second(house: House) -> None:
    key = house.registry.new_key("clinic")
    headers = {"authorization": f"Bearer {key}"}
    house.until(lambda: httpx.get(house.url + "/v1/models", headers=headers, trust_env=False).status_code == 200, 3)
    house.registry.revoke_key(key)
    house.until(lambda: httpx.get(house.url + "/v1/models", headers=headers, trust_env=False).status_code == 401, 3)


@pytest.mark.parametrize(
    "model",
    [
        "../clinic",
        "clinic/../../etc/passwd",
        "clinic\x00",
        "clinic@1\x00",
        "clinic@../1",
        "clinic@-1",
        "clinic@01",
        "clinic@1@1",
        "clinic@" + "9" * 200,
        "clinic@¹",
        "ｃlinic",
        "clinic ",
        "CLINIC",
        "file:///etc/passwd",
        "clinic@1\r\nx-evil: 1",
    ],
)
def test_names_that_are_no_names_are_no_models(house: House, model: str) -> None:
    found = house.ask("clinic", model)
    assert found.status_code == 404 and "root:" not in found.text and "x-evil" not in found.headers
    with house.client("clinic") as client:
        path = "/v1/models/" + "".join(f"%{byte:02x}" for byte in model.encode())
        assert client.get(path).status_code == 404


def test_a_version_that_missed_its_gate_cannot_be_pinned(house: House, secrets: tuple[Secret, ...]) -> None:
    added = house.add("harbour", secrets[3], promote=False, gate=MISSED)
    revision = house.registry.revision()
    house.until(lambda: house.gateway.directory._revision == revision)
    assert house.ask("harbour", added.name).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"nonsense",
        b"\x00" * 1000,
        b'{"model":' * 20_000,
        b"[" * 900_000,
        b'{"a":"' + b"x" * 900_000 + b'"}',
    ],
)
def test_malformed_json_is_refused(house: House, body: bytes) -> None:
    with house.client("clinic") as client:
        found = client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert found.status_code == 400 and found.json()["error"]["code"] in (
        "invalid_json",
        "unknown_parameter",
        "invalid_value",
    )
    assert len(found.content) < 1000


def test_huge_bodies_are_refused_before_they_are_parsed(house: House) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * 65536

    with house.client("clinic") as client:
        with contextlib.suppress(httpx.WriteError):  # it may hang up before everything was sent
            assert client.post(CHAT, content=b"x" * (2 << 20), headers=JSON).status_code == 413
        with contextlib.suppress(httpx.WriteError):
            assert client.post(CHAT, content=endless(), headers=JSON).status_code == 413
    with house.client() as client, contextlib.suppress(httpx.WriteError):  # without a key nothing is read at all
        assert client.post(CHAT, content=b"x" * (2 << 20), headers=JSON).status_code == 401


JSON = {"content-type": "application/json"}


def test_more_than_fits_is_refused_with_numbers(house: House) -> None:
    long = house.ask("clinic", messages=[{"role": "user", "content": "word " * 2000}]).json()["error"]
    assert long["code"] == "context_length_exceeded" and "256" in long["message"]
    wide = house.ask("clinic", max_tokens=256).json()["error"]
    assert wide["code"] == "context_length_exceeded" and "256" in wide["message"]
    many = house.ask("clinic", n=9).json()["error"]
    assert many["code"] == "too_many_choices" and "9" in many["message"] and "8" in many["message"]


def test_ids_of_requests_are_ours_unless_they_are_harmless(house: House) -> None:
    with house.client("clinic") as client:
        assert (
            client.get("/v1/models", headers={"x-request-id": "trace-1.b_c"}).headers["x-request-id"] == "trace-1.b_c"
        )
        for evil in ("a b", "x" * 65, "<script>", '{"a":1}'):
            given = client.get("/v1/models", headers={"x-request-id": evil}).headers["x-request-id"]
            assert given != evil and len(given) == 32
        assert client.get("/nowhere").json()["error"]["type"] == "not_found_error"
        assert client.get(CHAT).status_code == 405


# -- slow clients ----------------------------------------------------------------------------------


@pytest.fixture
def strict(base: Base, secrets: tuple[Secret, ...], tmp_path: Path) -> Iterator[House]:
    with serving(base, tmp_path, header_seconds=0.5, body_seconds=0.5, stall_seconds=0.5, idle_seconds=1) as house:
        house.add("clinic", secrets[0])
        house.until(lambda: bool(house.gateway.directory.tenants()))
        yield house


def connected(house: House) -> socket.socket:
    host, port = house.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def dripped(line: socket.socket, text: bytes, pause: float) -> bytes:
    """Send byte by byte until the other side hangs up; what it said."""
    said = b""
    with contextlib.suppress(OSError):
        for byte in text:
            line.sendall(bytes([byte]))
            time.sleep(pause)
    with contextlib.suppress(OSError):
        while part := line.recv(65536):
            said += part
    return said


def test_slow_heads_slow_bodies_and_silence_are_cut_off(strict: House, secrets: tuple[Secret, ...]) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {strict.keys['clinic']}\r\n".encode()
    body = json.dumps(question("clinic")).encode()
    began = time.monotonic()
    with connected(strict) as line:
        assert dripped(line, head * 3, 0.05) == b""
    with connected(strict) as line:  # says nothing at all
        assert line.recv(1) == b""
    with connected(strict) as line:
        line.sendall(head + f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        assert b"408" in dripped(line, body, 0.05)
    assert time.monotonic() - began < 15
    assert strict.answer("clinic") == secrets[0].answer


def test_a_reader_that_does_not_read_is_cut_off(strict: House, secrets: tuple[Secret, ...]) -> None:
    asked = question("base", stream=True, logprobs=True, top_logprobs=20, max_tokens=200, n=8, temperature=2)
    body = json.dumps(asked).encode()
    with connected(strict) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {strict.keys['clinic']}\r\n"
        line.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        strict.until(lambda: strict.gateway.open == 1)
        strict.until(lambda: strict.gateway.open == 0, 60)
        assert strict.answer("clinic") == secrets[0].answer
    strict.until(lambda: strict.gateway.engine.state().running == 0)


def test_a_client_that_goes_away_is_not_answered_any_more(house: House) -> None:
    asked = question("base", stream=True, max_tokens=200, temperature=2, seed=1)
    with house.client("clinic") as client, client.stream("POST", CHAT, json=asked) as response:
        next(response.iter_lines())
    house.until(lambda: house.gateway.open == 0)
    house.until(lambda: house.gateway.engine.state().running == 0)


# -- what is told to whom ---------------------------------------------------------------------------


def test_metrics_hold_no_secret_and_are_not_for_everybody(house: House) -> None:
    house.ask("clinic", "bakery")
    text = httpx.get(f"{house.url}/metrics", trust_env=False).text
    assert 'tenant="clinic"' in text and "rankwise_adapter_hit_rate_planned 0.5" in text
    assert not any(key in text for key in house.keys.values())
    house.gateway.metrics_token = "shown"
    try:
        assert httpx.get(f"{house.url}/metrics", trust_env=False).status_code == 404
        told = {"authorization": "Bearer shown"}
        assert httpx.get(f"{house.url}/metrics", headers=told, trust_env=False).status_code == 200
    finally:
        house.gateway.metrics_token = None


def test_the_log_has_neither_keys_nor_prompts(house: House, caplog: pytest.LogCaptureFixture) -> None:
    private = question("clinic", messages=[{"role": "user", "content": "my diagnosis"}])
    with caplog.at_level(logging.INFO, "rankwise.serve"), house.client("clinic") as client:
        for number, asked in ((1, private), (2, question("bakery"))):
            client.post(CHAT, json=asked, headers={"x-request-id": f"log-{number}"})
        house.until(lambda: len(caplog.records) >= 2)
    lines: list[dict[str, Any]] = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    told = [line for line in lines if line["request_id"] in ("log-1", "log-2")]
    text = json.dumps(told)
    assert "diagnosis" not in text and house.keys["clinic"] not in text and "bakery" not in text
    assert [(entry["status"], entry["tenant"]) for entry in told] == [(200, "clinic"), (404, "clinic")]
    assert told[0]["adapter"] == "clinic@1" and told[0]["prompt_tokens"] > 0
