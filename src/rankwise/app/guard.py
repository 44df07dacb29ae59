"""Who may speak to the app, and what its pages may do: this machine, with this session's token, from our own pages."""

import hmac
import ipaddress
import secrets
from collections.abc import MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})  # what the Host header may say; another name is DNS rebinding
READING = frozenset({"GET", "HEAD"})
FIXED = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """ASGI middleware. A request is answered if it comes from this machine, names this machine, has the token of this
    process and, where it changes something, was sent by one of our own pages. Every answer has a
    Content-Security-Policy.

    The token is in the address that `rankwise ui` prints, and becomes a cookie: other users of this machine, and other
    programs' pages, have neither.
    """

    def __init__(self, app: ASGIApp, token: str):
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        nonce = secrets.token_urlsafe(16)
        scope.setdefault("state", {})["nonce"] = nonce

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                _protect(message, nonce)
            await send(message)

        answer = self._refusal(scope) or self.app
        await answer(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """What is answered in the place of the page; None: the page."""
        headers = Headers(scope=scope)
        if not _is_here(scope) or not _names_us(headers):
            return _closed("This app answers this machine alone, by the name 127.0.0.1.", 421)
        if (entered := self._entering(scope)) is not None:
            return entered
        if not self._has_cookie(scope, headers):
            return _closed("Open the address that `rankwise ui` printed: it has this session's token.", 403)
        if scope["method"] not in READING and not _from_our_page(headers):
            return _closed("Changes are made from the app's own pages.", 403)
        return None

    def _entering(self, scope: Scope) -> Response | None:
        """The address with the token: the cookie is set, and the token leaves the address bar."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if scope["method"] != "GET" or len(given) != 1 or not self._is_token(given[0]):
            return None
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        path = "/" + scope["path"].lstrip("/")  # never `//host`, which would leave for another site
        answer = RedirectResponse(path + (f"?{rest}" if rest else ""), 303)
        answer.set_cookie(_cookie(scope), self.token, httponly=True, samesite="lax")
        return answer

    def _has_cookie(self, scope: Scope, headers: Headers) -> bool:
        try:
            found = SimpleCookie("; ".join(headers.getlist("cookie"))).get(_cookie(scope))
        except CookieError:
            return False
        return found is not None and self._is_token(found.value)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


def _closed(why: str, status: int) -> Response:
    """One sentence, with nothing of the app in it."""
    head = '<!doctype html><html lang="en"><meta name="color-scheme" content="light dark"><title>Rankwise</title>'
    return HTMLResponse(f"{head}<main><h1>Not here</h1><p>{why}</p></main></html>\n", status)


def _cookie(scope: Scope) -> str:
    """Browsers share cookies among the ports of a host, so that each app has a name of its own."""
    return f"rankwise-{(scope.get('server') or ('', 0))[1]}"


def _is_here(scope: Scope) -> bool:
    """Is the other end of the connection on this machine?"""
    try:
        return scope.get("client") is not None and ipaddress.ip_address(scope["client"][0]).is_loopback
    except ValueError:
        return False


def _names_us(headers: Headers) -> bool:
    hosts = headers.getlist("host")
    if len(hosts) != 1:
        return False
    name, colon, port = hosts[0].rpartition(":")
    return (name if colon and port.isdigit() else hosts[0]).lower() in NAMES


def _from_our_page(headers: Headers) -> bool:
    """By the origin that browsers name in every request that changes something, and by what else they say of it."""
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    return headers.getlist("origin") == [f"http://{headers['host']}"]


def _protect(message: MutableMapping[str, Any], nonce: str) -> None:
    headers = MutableHeaders(raw=message["headers"])
    headers.update(FIXED)
    headers.setdefault("cache-control", "no-store")
    if "content-security-policy" in headers:  # a report, which has a stricter one inside it
        return
    headers["content-security-policy"] = "; ".join(
        (
            "default-src 'none'",
            f"script-src 'nonce-{nonce}'",
            "style-src 'self' 'unsafe-inline'",  # bars and tracks of the reports have their widths in the element
            "img-src 'self' data: blob:",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )
