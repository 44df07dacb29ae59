"""The body of a request, counted while it comes and limited in time, before anything parses it."""

import asyncio

from starlette.requests import ClientDisconnect, Request

from rankwise.serve.gateway.errors import Refusal
from rankwise.serve.gateway.settings import Settings


async def read_body(request: Request, settings: Settings) -> bytes:
    """All of it.

    Raises:
        Refusal: 413 too large, 408 too slow, 400 the client went away, 415 not JSON by its own words.
    """
    most = settings.max_body_bytes
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "The body must be application/json.", code="unsupported_media_type")
    if (
        request.headers.get("content-length", "0").isdecimal()
        and int(request.headers.get("content-length", "0")) > most
    ):
        raise _too_large(most)
    try:
        async with asyncio.timeout(settings.body_seconds):
            return await _counted(request, most)
    except TimeoutError:
        raise Refusal(
            408, f"The body did not come within {settings.body_seconds:g} seconds.", code="request_timeout"
        ) from None
    except ClientDisconnect:
        raise Refusal(400, "The client went away before its body was complete.", code="client_gone") from None


async def _counted(request: Request, most: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
    return b"".join(parts)


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"The body is larger than {most:,} bytes, the most that is taken.", code="request_too_large")
