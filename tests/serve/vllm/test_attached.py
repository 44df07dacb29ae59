"""Attaching to what is no vLLM, or not the one that is meant."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from rankwise.errors import ModelError, RankwiseError, UsageError
from rankwise.serve.engine import EngineDied, Generation
from rankwise.serve.vllm import VllmEngine
from tests.tiny import tiny_llama


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base") / "tiny")


class Another(BaseHTTPRequestHandler):
    """Some other server of OpenAI's API."""

    def do_GET(self) -> None:
        body = json.dumps({"object": "list", "data": [{"id": "gpt", "object": "model"}]}).encode()
        self.send_response(200 if self.path == "/v1/models" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def another() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Another)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://user:secret@host:8000"])
def test_no_address(base: Path, url: str) -> None:
    with pytest.raises(UsageError) as caught:
        VllmEngine.attached(url, base)
    assert "secret" not in str(caught.value)


def test_nobody_there(base: Path) -> None:
    engine = VllmEngine.attached("http://127.0.0.1:9", base)
    with pytest.raises(RankwiseError, match="does not answer"):
        asyncio.run(engine.start())
    assert not engine.state().alive


def test_another_server(base: Path, another: str) -> None:
    with pytest.raises(ModelError, match="not as vLLM does"):
        asyncio.run(VllmEngine.attached(another, base).start())


def test_an_engine_that_is_not_up_takes_nothing(base: Path) -> None:
    async def ask() -> None:
        async for _ in VllmEngine.attached("http://127.0.0.1:9", base).generate(Generation("r", None, (1,), 1, ())):
            pass

    with pytest.raises(EngineDied, match="not up"):
        asyncio.run(ask())
