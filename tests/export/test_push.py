"""A push to a hub: a real client against a real server, that speaks the few endpoints which a push needs."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rankwise import api
from rankwise.store import Run
from tests.training import environment, toy_model, trained

TOKEN = "hf_secretsecretsecret"


@dataclass
class Hub:
    """What the server was told.

    Attributes:
        refuses: the status that it answers with, where it refuses.
    """

    url: str = ""
    private: bool | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    refuses: int | None = None


@pytest.fixture
def hub() -> Iterator[Hub]:
    told = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            told.tokens.add(self.headers.get("Authorization", ""))
            if told.refuses:
                return self.answer({"error": f"no, {self.headers.get('Authorization')}"}, told.refuses)
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                told.private = asked.get("private", asked.get("visibility") == "private")
                return self.answer({"url": f"{told.url}/{asked['organization']}/{asked['name']}"})
            if self.path.endswith("/preupload/main"):
                files = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
                return self.answer({"files": files})
            if self.path.endswith("/commit/main"):
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        told.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                return self.answer({"commitOid": "0" * 40, "commitUrl": f"{told.url}/clinic/night/commit/{'0' * 40}"})
            return self.answer({})  # /api/validate-yaml

        def answer(self, value: Any, status: int = 200) -> None:
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *ignored: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield told
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    found = trained(folder, toy_model(folder / "base"), "lora", train={"max_steps": 2, "save_steps": 2})
    assert api.verify(found)[1] is not None
    return found


def push(run: Run, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in environment().items() if not k.startswith(("HF_", "HUGGING"))}
    home = os.fspath(run.folder.parent / "hf-home")  # no token of the person who runs the tests
    command = [
        sys.executable,
        "-m",
        "rankwise",
        "export",
        str(run.folder),
        "--to",
        "hub",
        "--repo",
        "clinic/night",
        *more,
    ]
    return subprocess.run(
        command, env=clean | {"HF_HOME": home} | variables, capture_output=True, text=True, timeout=240, check=False
    )


def left(run: Run) -> list[Path]:
    return list(run.folder.glob(".push.*"))


def test_an_adapter_is_pushed_privately_and_the_token_is_told_to_nobody_else(hub: Hub, run: Run) -> None:
    done = push(run, "--json", HF_TOKEN=TOKEN, HF_ENDPOINT=hub.url)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["url"] == f"{hub.url}/clinic/night" and made["folder"] is None and made["form"] == "peft"
    assert hub.private is True and hub.tokens == {f"Bearer {TOKEN}"}
    assert set(hub.files) == set(made["files"])
    sent = hub.files["adapter_model.safetensors"]
    assert sent == (run.adapter / "adapter_model.safetensors").read_bytes()
    assert b"## Evidence" in hub.files["README.md"]
    assert TOKEN not in done.stdout + done.stderr and not left(run)


def test_public_only_when_it_is_asked_for(hub: Hub, run: Run) -> None:
    assert push(run, "--public", HF_TOKEN=TOKEN, HF_ENDPOINT=hub.url).returncode == 0
    assert hub.private is False


@pytest.mark.parametrize(
    ("status", "why"), [(401, "the token is not valid"), (403, "may not write"), (500, "HTTP status 500")]
)
def test_a_refusal_is_one_clear_error_without_the_token(hub: Hub, run: Run, status: int, why: str) -> None:
    hub.refuses = status
    done = push(run, HF_TOKEN=TOKEN, HF_ENDPOINT=hub.url)
    assert done.returncode == 1 and why in done.stderr and "Traceback" not in done.stderr
    assert TOKEN not in done.stdout + done.stderr and not left(run)


def test_without_token_network_or_permission_nothing_is_tried(hub: Hub, run: Run) -> None:
    nothing = push(run, HF_ENDPOINT=hub.url)
    assert nothing.returncode == 1 and "there is no token" in nothing.stderr and "HF_TOKEN" in nothing.stderr
    offline = push(run, HF_TOKEN=TOKEN, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
    assert offline.returncode == 1 and "HF_HUB_OFFLINE" in offline.stderr
    assert not hub.tokens
    unreachable = push(run, HF_TOKEN=TOKEN, HF_ENDPOINT="http://127.0.0.1:9")
    assert unreachable.returncode == 1 and "could not be pushed" in unreachable.stderr
    assert TOKEN not in unreachable.stderr and not left(run)
