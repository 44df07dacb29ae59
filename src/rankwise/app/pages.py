"""What every page of the app has: layout, entries, fragments for live updates, streams, errors as pages."""

from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, StreamingResponse
from jinja2 import Environment

from rankwise.errors import RankwiseError
from rankwise.report.page import environment
from rankwise.version import __version__

TEMPLATES = Path(__file__).parent / "templates"
# Address, name, and what the page is for.
ENTRIES = (
    ("/decide", "Decide", "full fine-tuning, an adapter, or none"),
    ("/data", "Data", "is it sound, and what is learned of it"),
    ("/runs", "Runs", "what trains and what was trained"),
    ("/compare", "Compare", "methods beside each other at equal cost"),
    ("/tenants", "Tenants", "who is served by which version"),
)


@cache
def _environment() -> Environment:
    """The reports' own: one look, one set of numbers with units."""
    return environment(TEMPLATES)


def page(request: Request, template: str, context: dict[str, Any], status: int = 200) -> HTMLResponse:
    """A whole page; its template extends `app.html.j2`.

    Args:
        context: `figures` (Plotly figures by the id that `data-chart` names) and `terms` may be in it.
    """
    return HTMLResponse(written(request, template, context), status)


def fragment(request: Request, template: str, context: dict[str, Any], status: int = 200) -> HTMLResponse:
    """The part of a page that a live form or a stream puts in its place."""
    return HTMLResponse(written(request, template, context), status)


def written(request: Request, template: str, context: dict[str, Any]) -> str:
    """A template as text, for a stream."""
    path = request.url.path
    here = next((name for address, name, _ in ENTRIES if path == address or path.startswith(address + "/")), "")
    own = {"figures": {}, "nonce": request.state.nonce, "entries": ENTRIES, "here": here, "version": __version__}
    return _environment().get_template(template).render(own | {"root": request.app.state.root} | context)


def wants_fragment(request: Request) -> bool:
    """Does our own script ask, which puts a part of the page in its place? A form without it gets the whole page."""
    return request.headers.get("x-fragment") == "1"


def stream(fragments: AsyncIterator[str]) -> StreamingResponse:
    """Server-Sent Events: each text takes the place of what is in the element with `data-stream`; at their end the
    browser is told to ask no more.
    """

    async def events() -> AsyncIterator[str]:
        async for text in fragments:
            yield "".join(f"data: {line}\n" for line in text.splitlines()) + "\n"
        yield "event: end\ndata:\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


def error_page(request: Request, error: RankwiseError, status: int = 400) -> HTMLResponse:
    """What happened, what was expected, how to mend it."""
    template = "error_part.html.j2" if wants_fragment(request) else "error.html.j2"
    return page(request, template, {"error": error}, status)
