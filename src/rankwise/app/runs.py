"""The page Runs."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from rankwise.app.pages import page

router = APIRouter()


@router.get("/runs")
def show(request: Request) -> HTMLResponse:
    """The page."""
    return page(request, "runs.html.j2", {})
