"""Refusals in the shape of OpenAI's API, which its clients turn into exceptions of their own."""

from collections.abc import Mapping
from typing import Any

SHOWN = 64  # characters of a name that a client sent and that is said back


class Refusal(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        message: what happened and what to do, one or two sentences; never a secret, never another tenant's name.
        code: for programs; None: the type says it all.
        param: the field that is at fault.
        retry_after: seconds after which it may be tried again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The document that is sent."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> Mapping[str, str]:
        found = {} if self.retry_after is None else {"retry-after": str(max(1, round(self.retry_after + 0.5)))}
        return {**found, "www-authenticate": "Bearer"} if self.status == 401 else found


_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "unavailable_error",
}


def bad(message: str, param: str | None = None, code: str | None = None) -> Refusal:
    """400."""
    return Refusal(400, message, param=param, code=code)


def unauthorized() -> Refusal:
    """One answer for a missing, a malformed, a forged and a revoked key."""
    return Refusal(401, "This server needs a valid API key: `Authorization: Bearer KEY`.", code="invalid_api_key")


def no_such_model(name: str) -> Refusal:
    """One answer for a model that does not exist and for one of another tenant."""
    shown = name if len(name) <= SHOWN else f"{name[:SHOWN]}…"
    return Refusal(
        404,
        f"The model {shown!r} does not exist, or this key has no access to it. GET /v1/models lists yours.",
        code="model_not_found",
        param="model",
    )


def unavailable(message: str, retry_after: float, code: str = "unavailable") -> Refusal:
    """503: not the fault of the request."""
    return Refusal(503, message, code=code, retry_after=retry_after)


def limited(message: str, retry_after: float, code: str) -> Refusal:
    """429."""
    return Refusal(429, message, code=code, retry_after=retry_after)
