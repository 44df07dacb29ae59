"""The page Runs: which there are, one of them while it trains, and its stop."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from rankwise import api
from rankwise.app.pages import page, stream, written
from rankwise.app.root import run_named, run_names
from rankwise.report import run_live
from rankwise.store import Run

EVERY = 1.0  # seconds between two looks at a run that trains
REPORT_POLICY = "sandbox allow-scripts"  # with the page's own policy inside: its scripts can ask nothing of this app

router = APIRouter(prefix="/runs")


@router.get("")
def show(request: Request) -> HTMLResponse:
    """All runs, the newest first."""
    runs = sorted(run_names(request.app.state.root).items(), key=lambda found: _made(found[1]), reverse=True)
    lines = [(name, api.summary(run)) for name, run in runs]
    return page(request, "runs.html.j2", {"lines": lines, "say": run_live, "terms": run_live.LIST_TERMS})


def _made(run: Run) -> float:
    """Seconds since the epoch."""
    return run.plan_path.stat().st_mtime


@router.get("/{name}")
def one(request: Request, name: str) -> HTMLResponse:
    """One run as it is now; it goes on by itself while the run trains."""
    run = run_named(request.app.state.root, name)
    return page(request, "run_live.html.j2", _context(name, run, api.Monitor(run)))


@router.get("/{name}/stream")
def follow(request: Request, name: str) -> StreamingResponse:
    """The live part of that page, again whenever it has changed, until nobody trains the run any more."""
    run = run_named(request.app.state.root, name)
    return stream(_changes(request, name, run))


async def _changes(request: Request, name: str, run: Run) -> AsyncIterator[str]:
    monitor, before = api.Monitor(run), ""
    while True:
        context = await run_in_threadpool(_context, name, run, monitor)
        text = written(request, "run_live_part.html.j2", context)
        if text != before:
            yield text
        if context["look"].state != "running":
            return
        before = text
        await asyncio.sleep(EVERY)


@router.get("/{name}/stop")
def ask(request: Request, name: str) -> HTMLResponse:
    """Shall it stop? Asked once."""
    run = run_named(request.app.state.root, name)
    return page(request, "run_stop.html.j2", _context(name, run, api.Monitor(run)))


@router.post("/{name}/stop")
def stop(request: Request, name: str) -> Response:
    """Ask the process that trains it to save and stop."""
    api.stop(run_named(request.app.state.root, name))
    return RedirectResponse(f"/runs/{quote(name, safe='')}", 303)


@router.get("/{name}/report")
def report(request: Request, name: str) -> HTMLResponse:
    """The report of the run, written anew from its folder."""
    path = api.report(run_named(request.app.state.root, name))
    text = path.read_text(encoding="utf-8")
    return HTMLResponse(text, headers={"content-security-policy": REPORT_POLICY})


def _context(name: str, run: Run, monitor: api.Monitor) -> dict[str, Any]:
    look = monitor.look()
    view = run_live.live_view(monitor.plan, look, run.folder)
    evidence = run.evidence() if run.evidence_path.is_file() else None
    return {
        "name": name,
        "plan": monitor.plan,
        "look": look,
        "view": view,
        "evidence": evidence,
        "watch": view.watch,
        "figures": run_live.live_figures(look.events, evidence),
        "terms": run_live.TERMS,
        "draws": True,
    }
