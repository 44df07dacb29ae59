"""The page *Compare*: the comparisons of the folder, one of them with what came of it, and how far one is that runs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from rankwise import api
from rankwise.app.pages import page, stream, written
from rankwise.app.root import comparison_names
from rankwise.errors import RunError
from rankwise.report.compare_page import TERMS, compare_context
from rankwise.report.compared import decision

router = APIRouter()
AGAIN_SECONDS = 2.0  # between two looks at a comparison that runs
NEWEST = 5  # finished runs that are named while others train


@router.get("/compare")
def show(request: Request) -> HTMLResponse:
    """Every comparison of the folder, with what came of it or how far it is."""
    names = comparison_names(request.app.state.root)
    lines = {line["comparison"]: line for folder in {p.parent for p in names.values()} for line in _listed(folder)}
    found = [lines[str(path)] | {"name": name} for name, path in sorted(names.items())]
    return page(request, "compare_list.html.j2", {"found": found, "terms": TERMS})


def _listed(folder: Path) -> list[dict[str, Any]]:
    """As `rankwise runs` lists them, with the verdict's own sentence in the place of all of it."""
    lines = []
    for line in api.list_comparisons(folder):
        known = api.find_comparison(Path(line["comparison"])) if line["state"] == "finished" else None
        lines.append(line | {"decision": decision(known.outcome()) if known else None})
    return lines


@router.get("/compare/{name}")
def one(request: Request, name: str) -> HTMLResponse:
    """What the report of a comparison shows, in any state that it is in."""
    folder = _folder(request, name)
    outcome = folder.outcome() if folder.outcome_path.is_file() else None
    context = compare_context(folder.bakeoff(), folder.trials(), outcome, folder=name) | _progress(request, name)
    return page(request, "compare_one.html.j2", context | {"layout": "app.html.j2", "draws": True})


@router.get("/compare/{name}/stream")
async def follow(request: Request, name: str) -> Response:
    """How far it is, until it does not run any more."""
    _folder(request, name)

    async def parts() -> AsyncIterator[str]:
        told = ""
        while not await request.is_disconnected():
            context = await asyncio.to_thread(_progress, request, name)
            text = written(request, "compare_progress.html.j2", context)
            if text != told:
                yield text
            told = text
            if context["progress"]["state"] != "running":
                return
            await asyncio.sleep(AGAIN_SECONDS)

    return stream(parts())


def _folder(request: Request, name: str) -> Any:
    path = comparison_names(request.app.state.root).get(name)
    folder = None if path is None else api.find_comparison(path)
    if folder is None:
        raise RunError(f"there is no comparison {name!r} here", fix="the page Compare lists them")
    return folder


def _progress(request: Request, name: str) -> dict[str, Any]:
    folder = _folder(request, name)
    newest = sorted(folder.trials(), key=lambda trial: (trial.purpose == "final", trial.seed))[-NEWEST:]
    return {"name": name, "progress": api.comparison_progress(folder), "newest": newest}
