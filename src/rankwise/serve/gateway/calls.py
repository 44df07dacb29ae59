"""One HTTP request as the gateway's log and metrics see it, and the outermost layer that sees every one of them."""

import asyncio
import logging
import re
import time
from dataclasses import dataclass, field
from uuid import uuid4

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankwise.serve.gateway.errors import Refusal, unavailable
from rankwise.serve.gateway.gateway import Gateway
from rankwise.serve.gateway.logs import log

_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
QUIET = ("/health", "/ready", "/metrics")  # asked every few seconds: not logged while all is well


@dataclass(slots=True)
class Arrival:
    """When the last bytes of a connection came (perf_counter)."""

    at: float


@dataclass(slots=True)
class Call:
    """
    Attributes:
        began: perf_counter when the head of the request was there.
        arrived: when its last byte was; set after the body was read.
        waited: seconds for the adapter to be loaded.
        submitted: when the first prompt went to the engine; None: not yet.
        first_token: when the first token came.
        delivered: seconds from each token to the socket.
    """

    id: str
    began: float = field(default_factory=time.perf_counter)
    arrived: float = 0.0
    waited: float = 0.0
    submitted: float | None = None
    first_token: float | None = None
    delivered: list[float] = field(default_factory=list)
    tenant: str | None = None
    model: str | None = None
    adapter: str | None = None
    prompt_tokens: int = 0
    answer_tokens: int = 0
    status: int = 0
    refused: str | None = None


class Calls:
    """ASGI middleware: request ids, the log line, the metrics, and an answer to whatever nobody caught."""

    def __init__(self, app: ASGIApp, gateway: Gateway):
        self._app, self._gateway = app, gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = scope.setdefault("state", {})["call"] = Call(_request_id(scope))

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                named = [(b"x-request-id", call.id.encode()), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message.get("headers", ()), *named]}
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            if not self._gateway.closing:
                raise
            if not call.status:
                await _say(unavailable("This server is shutting down.", 1, "shutting_down"), scope, receive, noted)
        except Exception as fault:
            log("internal error", logging.ERROR, fault, request_id=call.id)
            call.refused = "internal_error"
            if not call.status:
                await _say(
                    Refusal(500, "Internal error; the log has it.", code="internal_error"), scope, receive, noted
                )
        finally:
            self._write_down(scope, call)

    def _write_down(self, scope: Scope, call: Call) -> None:
        route = getattr(scope.get("route"), "path", "other")
        seconds, metrics = time.perf_counter() - call.began, self._gateway.metrics
        metrics.request(call.tenant, route, call.status)
        metrics.whole.labels(route).observe(seconds)
        if call.submitted is not None:
            self._measure(call)
        if route in QUIET and call.status < 500:
            return
        log(
            "request",
            request_id=call.id,
            method=scope["method"] if scope["method"] in _METHODS else "other",
            route=route,
            status=call.status,
            tenant=call.tenant,
            model=call.model,
            adapter=call.adapter,
            prompt_tokens=call.prompt_tokens,
            answer_tokens=call.answer_tokens,
            seconds=round(seconds, 4),
            refused=call.refused,
        )

    def _measure(self, call: Call) -> None:
        assert call.submitted is not None
        metrics, submit = self._gateway.metrics, call.submitted - (call.arrived or call.began) - call.waited
        metrics.inside.labels("submit").observe(submit)
        if call.first_token is not None:
            metrics.first_token.observe(call.first_token - call.began)
        if call.delivered:
            deliver = sum(call.delivered) / len(call.delivered)
            metrics.inside.labels("deliver").observe(deliver)
            metrics.inside.labels("both").observe(submit + deliver)


_METHODS = frozenset(("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"))


async def _say(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse(refusal.body(), refusal.status, refusal.headers())(scope, receive, send)


def _request_id(scope: Scope) -> str:
    """The client's own where it is harmless in a log and a header, else one of ours."""
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    said = given[0].decode("latin-1") if len(given) == 1 else ""
    return said if _GIVEN_ID.fullmatch(said) else uuid4().hex
