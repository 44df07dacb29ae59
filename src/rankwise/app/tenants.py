"""The page Tenants: who is served by which version, why a version may answer or not, promote, roll back."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from rankwise import api
from rankwise.app.pages import page
from rankwise.errors import AnswerIsNo
from rankwise.report import tenant_words

router = APIRouter(prefix="/tenants")


@router.get("")
def show(request: Request) -> HTMLResponse:
    """All tenants."""
    known = _registry(request)
    return page(request, "tenants.html.j2", _said(known) | {"tenants": known.tenants()})


@router.get("/{name}")
def one(request: Request, name: str) -> HTMLResponse:
    """One tenant: its versions with their gates, its limits, its history."""
    return _page(request, name)


@router.post("/{name}/promote")
def promote(request: Request, name: str, version: Annotated[int, Form(ge=1, le=10**9)]) -> Response:
    """Let a version answer; the page says why where it may not."""
    try:
        _registry(request).promote(name, version)
    except AnswerIsNo as refused:
        return _page(request, name, refused)
    return _back(name)


@router.post("/{name}/rollback")
def roll_back(request: Request, name: str) -> Response:
    """Back to the version that answered before."""
    try:
        _registry(request).roll_back(name)
    except AnswerIsNo as refused:
        return _page(request, name, refused)
    return _back(name)


def _page(request: Request, name: str, refused: AnswerIsNo | None = None) -> HTMLResponse:
    known = _registry(request)
    told = api.show_tenant(name, known)
    context = {"tenant": known.tenant(name), "told": told, "history": known.history(name)[::-1], "error": refused}
    return page(request, "tenant.html.j2", _said(known) | context, 409 if refused else 200)


def _said(known: Any) -> dict[str, Any]:
    return {"registry": known.shown, "say": tenant_words, "terms": tenant_words.TERMS}


def _registry(request: Request) -> Any:
    """The registry of tenants. Raises RegistryError."""
    return request.app.state.registry()


def _back(name: str) -> RedirectResponse:
    return RedirectResponse(f"/tenants/{quote(name, safe='')}", 303)
