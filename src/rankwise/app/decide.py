"""The page Decide."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from rankwise.app.pages import page

router = APIRouter()


@router.get("/decide")
def show(request: Request) -> HTMLResponse:
    """The page."""
    return page(request, "decide.html.j2", {})
