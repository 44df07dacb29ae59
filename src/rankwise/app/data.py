"""The page Data."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from rankwise.app.pages import page

router = APIRouter()


@router.get("/data")
def show(request: Request) -> HTMLResponse:
    """The page."""
    return page(request, "data.html.j2", {})
