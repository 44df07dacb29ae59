"""The page Tenants."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from rankwise.app.pages import page

router = APIRouter()


@router.get("/tenants")
def show(request: Request) -> HTMLResponse:
    """The page."""
    return page(request, "tenants.html.j2", {})
