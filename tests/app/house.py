"""The app as a real server over a folder, and clients that were let in."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import uvicorn
from fastapi import FastAPI

from rankwise.app.server import create_app


class House(NamedTuple):
    """
    Attributes:
        url: without a slash at its end; `token` is not in it.
    """

    app: FastAPI
    url: str
    token: str

    @property
    def entrance(self) -> str:
        return f"{self.url}/?token={self.token}"

    @contextmanager
    def client(self, **options: Any) -> Iterator[httpx.Client]:
        """A client with the cookie, whose requests say that they come from our own pages."""
        with httpx.Client(base_url=self.url, headers={"origin": self.url}, timeout=60, **options) as client:
            assert client.get(self.entrance).status_code == 303
            yield client


@contextmanager
def open_house(root: Path, registry: str | None = None) -> Iterator[House]:
    """The app over `root` behind uvicorn on a free port, until the end of the block."""
    app = create_app(root, registry)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_config=None,
        access_log=False,
        ws="none",
        timeout_keep_alive=600,  # a slow test's next request would meet a connection that is just closed
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield House(app, f"http://127.0.0.1:{port}", app.state.token)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not end"
