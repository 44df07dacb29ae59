"""The page Compare."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from rankwise.app.pages import page

router = APIRouter()


@router.get("/compare")
def show(request: Request) -> HTMLResponse:
    """The page."""
    return page(request, "compare.html.j2", {})
