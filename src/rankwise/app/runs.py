"""The page Runs: which there are, one of them while it trains, and its stop."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from rankwise import api, files
from rankwise.app.pages import page, stream, written
from rankwise.app.root import run_named, run_names
from rankwise.report import run_live
from rankwise.store import Run

EVERY = 1.0  # seconds between two looks at a run that trains
LIST_EVERY = 2.0  # seconds between two looks at all of them
REPORT_POLICY = "sandbox allow-scripts"  # with the page's own policy inside: its scripts can ask nothing of this app

router = APIRouter()


@router.get("/runs")
def show(request: Request) -> HTMLResponse:
    """All runs, the newest first; the list goes on by itself."""
    return page(request, "runs.html.j2", _listed(request, Seen()))


@router.get("/follow/runs")
def follow_all(request: Request) -> StreamingResponse:
    """The list, again whenever a run began, ended, or is there no more. Its address is no run's name."""

    async def changes() -> AsyncIterator[str]:
        seen, before = Seen(), ""
        while True:
            context = await run_in_threadpool(_listed, request, seen)
            text = written(request, "runs_part.html.j2", context)
            if text != before:
                yield text
            before = text
            await asyncio.sleep(LIST_EVERY)

    return stream(changes())


class Seen:
    """Lines of runs, made anew when the run has changed: a list that is followed reads no event twice."""

    def __init__(self) -> None:
        self._lines: dict[Path, tuple[Any, dict[str, Any]]] = {}

    def line(self, run: Run) -> dict[str, Any]:
        """As `api.summary`. Steps that a run takes while it trains do not change its line."""
        state = (run.writer(), _times(run) if run.writer() is None else None)
        if self._lines.get(run.folder, (None,))[0] != state:
            self._lines[run.folder] = (state, api.summary(run))
        return self._lines[run.folder][1]


def _times(run: Run) -> tuple[float | None, ...]:
    return tuple(files.written_at(p) for p in (run.plan_path, run.events_path, run.evidence_path, run.artifact_path))


def _listed(request: Request, seen: Seen) -> dict[str, Any]:
    runs = run_names(request.app.state.root)
    newest = sorted(runs, key=lambda name: files.written_at(runs[name].plan_path) or 0.0, reverse=True)
    lines = [(name, seen.line(runs[name])) for name in newest]
    return {"lines": lines, "say": run_live, "terms": run_live.LIST_TERMS}


@router.get("/runs/{name}")
def one(request: Request, name: str) -> HTMLResponse:
    """One run as it is now; it goes on by itself while the run trains."""
    run = run_named(request.app.state.root, name)
    return page(request, "run_live.html.j2", _context(name, run, api.Monitor(run)))


@router.get("/runs/{name}/stream")
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


@router.get("/runs/{name}/stop")
def ask(request: Request, name: str) -> HTMLResponse:
    """Shall it stop? Asked once."""
    run = run_named(request.app.state.root, name)
    return page(request, "run_stop.html.j2", _context(name, run, api.Monitor(run)))


@router.post("/runs/{name}/stop")
def stop(request: Request, name: str) -> Response:
    """Ask the process that trains it to save and stop."""
    api.stop(run_named(request.app.state.root, name))
    return RedirectResponse(f"/runs/{quote(name, safe='')}", 303)


@router.get("/runs/{name}/report")
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
