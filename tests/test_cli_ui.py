"""`rankwise ui`: its options reach the server, and its address is told."""

import json
import webbrowser
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rankwise.app import server
from rankwise.cli import app


def test_every_option_reaches_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, int, str | None]] = []
    opened: list[str] = []

    def serve(root: Path, port: int, on_ready: Callable[[str], None], registry: str | None) -> None:
        asked.append((root, port, registry))
        on_ready("http://127.0.0.1:7/?token=t")

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(opened.append(address)))
    run = CliRunner()
    plain = run.invoke(app, ["ui", "--root", str(tmp_path), "--port", "7", "--registry", "r.sqlite"])
    assert plain.exit_code == 0 and "http://127.0.0.1:7/?token=t" in plain.stdout
    assert "no browser could be opened" in plain.stderr and len(opened) == 1
    quiet = run.invoke(app, ["ui", "--no-open", "--json"])
    assert json.loads(quiet.stdout) == {"url": "http://127.0.0.1:7/?token=t", "root": str(Path.cwd())}
    assert len(opened) == 1 and asked == [(tmp_path, 7, "r.sqlite"), (Path(), 8420, None)]


def test_it_refuses_what_cannot_be_meant(tmp_path: Path) -> None:
    missing = CliRunner().invoke(app, ["ui", "--root", str(tmp_path / "nothing"), "--no-open", "--json"])
    assert missing.exit_code == 2 and "is no folder" in json.loads(missing.stdout)["error"]["what"]
    assert CliRunner().invoke(app, ["ui", "--port", "70000"]).exit_code == 2
    secret = CliRunner().invoke(app, ["ui", "--registry", "postgresql://me:secret@host/db"])
    assert secret.exit_code == 2 and "holds a password" in secret.stderr
