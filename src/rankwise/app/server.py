"""The app as one FastAPI application, and uvicorn around it on a loopback address."""

import contextlib
import functools
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from rankwise import api
from rankwise.app import compare, data, decide, runs, tenants
from rankwise.app.guard import Guard
from rankwise.app.pages import error_page
from rankwise.app.planner import Planner
from rankwise.errors import RankwiseError, RunError, UnknownTenant, UsageError
from rankwise.report.page import TEMPLATES as REPORTS

HOST = "127.0.0.1"
STATIC = Path(__file__).parent / "static"
ASSETS = {
    "page.css": REPORTS / "page.css",
    "charts.js": REPORTS / "charts.js",
    "ui.css": STATIC / "ui.css",
    "ui.js": STATIC / "ui.js",
}
CLOSING_SECONDS = 2  # for open requests and streams after Ctrl-C


def create_app(root: Path, registry: str | None = None) -> FastAPI:
    """The app over one folder. `app.state.token` is what a browser has to bring, `app.state.root` the folder.

    Args:
        registry: of tenants, as `api.registry` takes it; it is opened when it is first asked.

    Raises:
        UsageError: `root` is no folder.
    """
    if not root.is_dir():
        raise UsageError(f"{root} is no folder", expected="the folder with runs, comparisons and data")
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_life)
    app.state.root = root.resolve()
    app.state.registry = functools.cache(lambda: api.registry(registry))
    app.state.planner = Planner()
    app.state.token = secrets.token_urlsafe(24)
    for part in (decide, data, runs, compare, tenants):
        app.include_router(part.router)
    app.add_api_route("/", _home, methods=["GET"])
    app.add_api_route("/static/{name}", _asset, methods=["GET"])
    app.add_exception_handler(RankwiseError, _refused)
    app.add_exception_handler(HTTPException, _not_a_page)
    app.add_middleware(Guard, token=app.state.token)
    return app


@contextlib.asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.planner.close()


def _home() -> Response:
    return RedirectResponse("/decide", 303)


def _asset(name: str) -> Response:
    """A file of ours by its name in a table. Plotly's is kept by the browser: it is large and stays the same."""
    if name == "plotly.js":
        path = str(files("plotly") / "package_data" / "plotly.min.js")
        return FileResponse(path, media_type="text/javascript", headers={"cache-control": "private, max-age=86400"})
    if name not in ASSETS:
        raise HTTPException(404)
    return FileResponse(ASSETS[name])


def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, RankwiseError):
        raise error
    return error_page(request, error, 404 if isinstance(error, RunError | UnknownTenant) else 400)


def _not_a_page(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    what = RankwiseError(f"{request.url.path}: {error.detail}", fix="the pages are listed above")
    return error_page(request, what, error.status_code)


def serve(root: Path, port: int, on_ready: Callable[[str], None], registry: str | None = None) -> None:
    """Until Ctrl-C or SIGTERM.

    Args:
        port: 0 takes a free one.
        on_ready: called with the address, token and all, once it can be asked.
        registry: as `create_app`.

    Raises:
        RankwiseError: no folder, or the port is taken.
    """
    app = create_app(root, registry)
    listening = _listen(port)
    address = f"http://{HOST}:{listening.getsockname()[1]}/?token={app.state.token}"
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=CLOSING_SECONDS,
    )
    with listening, contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again when all is closed
        _Server(config, lambda: on_ready(address)).run([listening])


class _Server(uvicorn.Server):
    """uvicorn's, which tells when it can be asked."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]):
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as fault:
        listening.close()
        raise RankwiseError(
            f"cannot listen on {HOST} port {port}: {fault.strerror or fault}",
            fix="choose another --port (0 takes a free one), or end what listens there",
        ) from None
    return listening
