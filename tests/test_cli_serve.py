"""`rankwise serve`: what its options mean, what it refuses, and one server from start to SIGTERM."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from benchmarks.serve.house import Place, served
from benchmarks.serve.secret import QUESTION, make_secrets
from click.testing import Result
from typer.testing import CliRunner

from rankwise.api import serving
from rankwise.cli import app
from tests.tiny import tiny_llama


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["serve", *map(str, arguments)])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny", hidden=64, tied=False, dtype="fp32")


OPTIONS: list[tuple[str, Any, str, Any]] = [
    ("--model", "llama", "model", "llama"),
    ("--engine", "vllm", "engine", "vllm"),
    ("--engine-url", "http://127.0.0.1:9", "engine_url", "http://127.0.0.1:9"),
    ("--engine-python", "/opt/vllm/bin/python", "engine_python", Path("/opt/vllm/bin/python")),
    ("--registry", "r.sqlite", "registry", "r.sqlite"),
    ("--adapters", "s3://b/a", "adapters", "s3://b/a"),
    ("--host", "::1", "host", "::1"),
    ("--port", 0, "port", 0),
    ("--slots", 3, "slots", 3),
    ("--memory-gb", 0.5, "memory_gb", 0.5),
    ("--zipf", 0.8, "zipf", 0.8),
    ("--max-batch", 4, "max_batch", 4),
    ("--max-length", 64, "max_length", 64),
    ("--dtype", "fp32", "dtype", "fp32"),
    ("--device", "cuda:0", "device", "cuda:0"),
    ("--threads", 2, "threads", 2),
    ("--start-seconds", 90, "start_seconds", 90.0),
]
LIMITS: list[tuple[str, Any, str, Any]] = [
    ("--max-open", 5, "max_open", 5),
    ("--max-choices", 2, "max_choices", 2),
    ("--max-body-kb", 3, "max_body_bytes", 3072),
    ("--request-seconds", 7, "request_seconds", 7.0),
    ("--slot-seconds", 3, "slot_seconds", 3.0),
    ("--drain-seconds", 1, "drain_seconds", 1.0),
]


def test_every_option_reaches_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[serving.Serving] = []
    monkeypatch.setattr(serving, "serve", lambda given, ready: asked.append(given))
    arguments = [word for option, value, _, _ in OPTIONS + LIMITS for word in (option, value)]
    done = run(*arguments, "--allow-base", "--four-bit", "--log-prompts")
    assert done.exit_code == 0, done.output
    for option, _, name, value in OPTIONS:
        assert getattr(asked[0], name) == value, option
    for option, _, name, value in LIMITS:
        assert asked[0].limits[name] == value, option
    assert asked[0].four_bit and asked[0].limits["allow_base"] and asked[0].limits["log_prompts"]
    assert "--log-prompts" in done.stderr and "TLS" not in done.stderr
    assert "TLS" in run("--host", "0.0.0.0").stderr


def test_it_refuses_what_cannot_be_meant(base: Path, tmp_path: Path) -> None:
    place = ("--model", base, "--registry", tmp_path / "r.sqlite", "--adapters", tmp_path / "a")
    for wrong in (["--engine", "sglang"], ["--dtype", "fp8"], ["--engine-url", "http://127.0.0.1:9"]):
        assert run(*place, *wrong).exit_code == 2
    running = ("--engine-url", "http://127.0.0.1:9")
    for left_aside in (["--four-bit"], ["--threads", 2], ["--device", "cuda:0"], [*running, "--dtype", "fp32"]):
        refused = run(*place, "--engine", "vllm", *left_aside)
        assert refused.exit_code == 2 and str(left_aside[-1 if len(left_aside) == 1 else -2]) in refused.stderr
    long = run(*place, "--max-length", 100_000, "--json")
    assert long.exit_code == 2 and "positions" in json.loads(long.stdout)["error"]["what"]
    assert run("--model", tmp_path / "nothing", "--registry", tmp_path / "r.sqlite").exit_code == 1


def test_slots_are_planned_from_popularity_and_memory() -> None:
    assert serving.plan_slots([], 1_000, 1.0) == 8
    assert serving.plan_slots([100] * 4, 10_000, 1.0) == 8
    many = serving.plan_slots([100] * 200, 10**9, 1.0)
    assert 8 < many < 200 and serving._hit_rate(1.0, 200, many) >= 0.95 > serving._hit_rate(1.0, 200, many - 8)
    assert serving.plan_slots([100] * 200, 1_000, 1.0) == 10


def test_a_server_from_its_start_to_sigterm(base: Path, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (secret,) = make_secrets(base, tmp_path / "secrets", 1, targets=("all-linear",), rate=0.02)
    place = Place(tmp_path, base)
    place.add("clinic", secret.folder)
    place.registry.promote("clinic")
    key = place.registry.new_key("clinic")
    asked = {"model": "clinic", "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 40}
    with served(place, ("--threads", "1", "--dtype", "fp32")) as running:
        assert running.told["engine"] == "embedded" and running.told["tenants"] == 1 and running.told["slots"] == 8
        headers = {"authorization": f"Bearer {key}"}
        url = f"{running.url}/v1/chat/completions"
        answer = httpx.post(url, json=asked, headers=headers, timeout=60, trust_env=False).json()
        assert answer["choices"][0]["message"]["content"] == secret.answer
        assert httpx.get(f"{running.url}/ready", trust_env=False).status_code == 200
        command = [sys.executable, "-m", "rankwise", "serve", "--model", str(base)]
        command += ["--port", running.url.rpartition(":")[2], "--registry", str(tmp_path / "registry.sqlite")]
        taken = subprocess.run(
            [*command, "--adapters", place.store.root],
            capture_output=True,
            text=True,
            check=False,
        )
        assert taken.returncode == 1 and "cannot listen" in taken.stderr
        engine = running.engine()
        assert engine is not None
        os.kill(running.pid, signal.SIGINT)  # Ctrl-C is no failure either; `served` checks the exit code
    assert not engine.is_running()
    log = (tmp_path / "server.log").read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [line["event"] for line in lines] == ["request", "shutting down"]
    assert QUESTION not in log and key not in log
