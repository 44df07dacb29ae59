"""The page *Decide*: a form, and the call that follows from it, again after each change."""

import asyncio
from pathlib import Path
from secrets import token_hex
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response

from rankwise.app import fields
from rankwise.app.pages import fragment, page, wants_fragment
from rankwise.app.planner import Planner, Wish
from rankwise.app.root import data_names
from rankwise.errors import JobError, RunError
from rankwise.records import Job
from rankwise.report.page import plan_context

router = APIRouter()
PATIENCE = 1.5  # seconds that an answer waits for a plan, before it tells how far it is


@router.get("/decide")
def show(request: Request) -> HTMLResponse:
    """The form as it opens, and no plan yet."""
    return page(request, "decide.html.j2", _form(request, fields.FIRST) | {"wish": None})


@router.post("/decide")
async def decide(request: Request) -> Response:
    """The form's answer: the call, how far it is, or what is wrong at which field."""
    sent = await request.form(max_files=0, max_fields=200)
    given = {key: value for key, value in sent.items() if isinstance(value, str)}
    try:
        job = await asyncio.to_thread(fields.read_form, given, request.app.state.root)
    except JobError as error:
        context = {"wish": None, "faults": fields.placed(error)}
        if wants_fragment(request):
            return fragment(request, "decide_faults.html.j2", {"fields": fields.FIELDS} | context, 422)
        return page(request, "decide.html.j2", _form(request, given) | context, 422)
    planner: Planner = request.app.state.planner
    wish = planner.ask(_key(job), given.get("page", ""), job, given)
    return (
        await _answer(request, wish) if wants_fragment(request) else RedirectResponse(f"/decide/plans/{wish.id}", 303)
    )


@router.get("/decide/plans/{id}")
async def plan(request: Request, id: str) -> Response:
    """A plan that was asked for: the call, or how far it is."""
    return await _answer(request, _wish(request, id))


@router.get("/decide/plans/{id}/job.yaml")
def job_yaml(request: Request, id: str) -> Response:
    """The job as a file."""
    wish = _wish(request, id)
    text = fields.job_file(wish.job, request.app.state.root, wish.given)
    return PlainTextResponse(text, headers={"content-disposition": 'attachment; filename="job.yaml"'})


@router.get("/decide/plans/{id}/plan.json")
def plan_json(request: Request, id: str) -> Response:
    """What `rankwise plan --json` prints."""
    wish = _wish(request, id)
    if wish.plan is None:
        raise RunError("this plan is not made yet", fix="open it again in a moment")
    return JSONResponse(wish.plan.contract(), headers={"content-disposition": 'attachment; filename="plan.json"'})


def _wish(request: Request, id: str) -> Wish:
    planner: Planner = request.app.state.planner
    wish = planner.find(id)
    if wish is None:
        raise RunError("this plan is not kept any more", fix="ask again on the page Decide")
    return wish


def _key(job: Job) -> str:
    """Of the job and of its files as they are now: a file that changed is planned for anew."""
    stats = [path.stat() for path in (job.data.train,) if path is not None and path.is_file()]
    folder = Path(job.model)
    stats += [f.stat() for f in sorted(folder.iterdir()) if f.is_file()] if folder.is_absolute() else []
    return f"{job.content_hash()} {[(s.st_mtime_ns, s.st_size) for s in stats]}"


async def _answer(request: Request, wish: Wish) -> Response:
    """Where it is not done at once, a part of the page that asks again."""
    await asyncio.to_thread(wish.ended.wait, PATIENCE)
    context: dict[str, Any] = {"wish": wish, "faults": {}, "fields": fields.FIELDS}
    status = 200
    if wish.error is not None:
        context["faults"], status = fields.placed(wish.error), 422
    if wish.plan is not None:
        context |= plan_context(wish.plan)
        context["job_file"] = fields.job_file(wish.job, request.app.state.root, wish.given)
    if not wants_fragment(request):
        return page(request, "decide.html.j2", _form(request, wish.given) | context, status)
    name = "decide_faults" if context["faults"] else "decide_plan" if wish.plan else "decide_progress"
    answer = fragment(request, f"{name}.html.j2", context, status)
    answer.headers["x-address"] = f"/decide/plans/{wish.id}"
    if name == "decide_progress":
        answer.headers["x-pending"] = "1"
    return answer


def _form(request: Request, given: Any) -> dict[str, Any]:
    return {
        "groups": fields.GROUPS,
        "fields": fields.FIELDS,
        "given": given,
        "faults": {},
        "files": list(data_names(request.app.state.root)),
        "suggestions": fields.suggestions(),
        "page_id": token_hex(8),
    }
