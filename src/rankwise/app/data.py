"""The page Data: rows that are handed over or lie below the root, as training would see them."""

from pathlib import Path
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from starlette.datastructures import FormData, UploadFile

from rankwise import api
from rankwise.app.pages import page
from rankwise.app.root import data_names, model_named, model_names
from rankwise.errors import RankwiseError, UsageError
from rankwise.records import Audit
from rankwise.report import audit_words

LARGEST = 200_000_000  # bytes of a request; larger files are looked at where they lie
SAMPLES = 4  # rows that are decoded
LONGEST = 6000  # characters of one piece of a decoded row
FIELDS = 8  # of the form
EMBEDDED = "embedded"

router = APIRouter(prefix="/data")


class Asked(NamedTuple):
    """What the form said.

    Attributes:
        chosen: a file below the root by its name in the listing; empty: none.
    """

    chosen: str = ""
    model: str = EMBEDDED


@router.get("")
def show(request: Request) -> HTMLResponse:
    """The form."""
    return _page(request, Asked())


@router.post("")
async def check(request: Request) -> HTMLResponse:
    """The audit below the form, or above it the one thing that is wrong."""
    if (told := await _too_large(request)) is not None:
        return await run_in_threadpool(_page, request, Asked(), error=told, status=413)
    async with request.form(max_files=1, max_fields=FIELDS) as form:
        return await run_in_threadpool(_checked, request, form)


async def _too_large(request: Request) -> RankwiseError | None:
    """By what the request says of itself, before any of it is kept. A browser shows an answer only when it could send
    all, so that what is refused is read and dropped.
    """
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) <= LARGEST:
        return None
    async for _ in request.stream():
        pass
    return UsageError(
        f"the file is larger than the {LARGEST / 1e6:,.0f} MB that this form takes",
        fix="put it into this folder and choose it from the list, or run `rankwise check FILE`",
    )


def _checked(request: Request, form: FormData) -> HTMLResponse:
    asked = Asked(_text(form, "chosen"), _text(form, "model") or EMBEDDED)
    try:
        found, name = _audit(request.app.state.root, asked, form.get("file"))
    except RankwiseError as error:
        return _page(request, asked, error=error, status=400)
    return _page(request, asked, found=found, name=name)


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


def _audit(root: Path, asked: Asked, handed: UploadFile | str | None) -> tuple[Audit, str]:
    """(what was found, the name of the file). A file that is handed over goes before one that is chosen."""
    options = {"model": _model(root, asked.model)}
    if isinstance(handed, UploadFile) and handed.filename:
        name = Path(handed.filename).name
        return _by_name(api.check_handed_over(name, handed.file, options, show=SAMPLES), asked), name
    if not asked.chosen:
        raise UsageError("no file was given", fix="choose a file, or drop one on the form")
    path = data_names(root).get(asked.chosen)
    if path is None:
        raise UsageError(f"there is no file of rows {asked.chosen!r} here", fix="choose one of the list")
    return _by_name(api.check(path, options, show=SAMPLES), asked), asked.chosen


def _by_name(found: Audit, asked: Asked) -> Audit:
    """With the model as it was asked for, not as a path."""
    return found.model_copy(update={"model": asked.model})


def _model(root: Path, name: str) -> str:
    """As the job has it. Raises UsageError."""
    if (found := model_named(root, name)) is not None:
        return found
    raise UsageError(
        f"{name!r} is no model that this page can take",
        expected="`embedded`, a model's folder below this one, or an id of the hub such as org/name",
        fix="choose one of the list",
    )


def _page(
    request: Request,
    asked: Asked,
    *,
    found: Audit | None = None,
    name: str = "",
    error: RankwiseError | None = None,
    status: int = 200,
) -> HTMLResponse:
    root = request.app.state.root
    context: dict[str, Any] = {"asked": asked, "found": found, "name": name, "error": error}
    context |= {"files": list(data_names(root)), "models": [EMBEDDED, *model_names(root)]}
    context |= {"say": audit_words, "terms": audit_words.TERMS, "longest": LONGEST, "largest": LARGEST}
    return page(request, "data.html.j2", context | _seen(found), status)


def _seen(found: Audit | None) -> dict[str, Any]:
    if found is None:
        return {}
    order = list(audit_words.LEVELS)
    most = max((rows for _, rows in found.length_histogram), default=1)
    return {
        "findings": sorted(found.findings, key=lambda f: order.index(f.level)),
        "bars": [(upper, rows, 100 * rows / most) for upper, rows in found.length_histogram],
    }
