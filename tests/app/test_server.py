"""The app behind a real server: who is let in, what its pages may do, every entry, errors as pages, a clean end."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rankwise.app.pages import ENTRIES
from rankwise.app.server import create_app
from rankwise.errors import UsageError
from tests.app.house import House, open_house


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(tmp_path_factory.mktemp("root")) as house:
        yield house


@pytest.fixture
def client(house: House) -> Iterator[httpx.Client]:
    with house.client() as client:
        yield client


def test_every_entry_has_its_page_and_says_where_one_is(client: httpx.Client) -> None:
    assert client.get("/").headers["location"] == "/decide"
    for address, name, _ in ENTRIES:
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert f"<title>{name}" in answer.text
        assert re.findall(r'aria-current="page">(\w+)<', answer.text) == [name]
        assert all(f'href="{other}"' in answer.text for other, _, _ in ENTRIES)


def test_the_token_opens_and_leaves_the_address(house: House) -> None:
    with httpx.Client(base_url=house.url) as stranger:
        assert stranger.get("/decide").status_code == 403
        assert stranger.get("/static/ui.js").status_code == 403
        assert stranger.get("/decide?token=wrong").status_code == 403
        entered = stranger.get(f"/decide?goal=task&token={house.token}")
        assert (entered.status_code, entered.headers["location"]) == (303, "/decide?goal=task")
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=lax" in cookie
        assert stranger.get("/decide").status_code == 200
        for path in ("//evil.example/", "/%5Cevil.example/"):
            target = f"{path}?token={house.token}".encode()
            away = stranger.get("/", extensions={"target": target})
            assert away.status_code == 303 and re.match(r"/(evil|%5C)", away.headers["location"])


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "", "localhost.:x"])
def test_another_name_is_refused(client: httpx.Client, host: str) -> None:
    """DNS rebinding: a page of another site whose name now leads here."""
    assert client.get("/decide", headers={"host": host}).status_code == 421


def test_changes_come_from_our_own_pages_alone(house: House, client: httpx.Client) -> None:
    def status(**headers: str) -> int:
        del client.headers["origin"]
        try:
            return client.post(
                "/no-such-form", headers={k.replace("_", "-"): v for k, v in headers.items()}
            ).status_code
        finally:
            client.headers["origin"] = house.url

    assert status(origin=house.url) == 404
    assert status(origin=house.url, sec_fetch_site="same-origin") == 404
    assert status() == 403
    assert status(origin="null") == 403
    assert status(origin="http://evil.example") == 403
    assert status(origin=house.url.replace("http:", "https:")) == 403
    assert status(origin=house.url, sec_fetch_site="cross-site") == 403


def test_pages_run_our_own_scripts_alone(client: httpx.Client) -> None:
    nonces = set()
    for address, _, _ in ENTRIES:
        answer = client.get(address)
        policy = answer.headers["content-security-policy"]
        (nonce,) = re.findall(r"script-src 'nonce-([\w-]+)';", policy)
        nonces.add(nonce)
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        scripts = re.findall(r"<script\b[^>]*>", answer.text)
        assert scripts and all(f'nonce="{nonce}"' in s or 'type="application/json"' in s for s in scripts)
        assert not re.search(r"<[^>]+\son\w+\s*=", answer.text), "an inline handler"
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(nonces) == len(ENTRIES)


def test_assets_are_files_of_a_table(client: httpx.Client) -> None:
    for name, kind in (("ui.css", "text/css"), ("ui.js", "text/javascript"), ("plotly.js", "text/javascript")):
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
    for name in ("server.py", "..%2fserver.py", "%2e%2e/server.py", "ui.css%00"):
        assert client.get(f"/static/{name}").status_code == 404


def test_what_is_not_there_is_told_on_a_page(client: httpx.Client) -> None:
    answer = client.get("/<script>alert(1)")
    assert answer.status_code == 404 and "<script>alert" not in answer.text and "Fix:" in answer.text
    piece = client.get("/nothing", headers={"x-fragment": "1"})
    assert piece.status_code == 404 and "<html" not in piece.text and 'role="alert"' in piece.text


def test_it_wants_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        create_app(tmp_path / "nothing")


def test_the_command_tells_its_address_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rankwise", "ui", "--root", str(tmp_path), "--port", "0", "--no-open", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert process.stdout is not None
        told = json.loads("".join(process.stdout.readline() for _ in range(4)))
        assert told["root"] == str(tmp_path)
        with httpx.Client(follow_redirects=True) as client:
            assert client.get(told["url"]).status_code == 200
        port = told["url"].split(":")[2].split("/")[0]
        taken = subprocess.run([*command[:7], port, "--no-open"], capture_output=True, text=True, check=False)
        assert taken.returncode == 1 and "--port" in taken.stderr
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and "Traceback" not in errors
    finally:
        process.kill()
