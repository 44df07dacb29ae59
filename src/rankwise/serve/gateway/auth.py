"""Who asks: an API key in the Authorization header, and the tenant it belongs to."""

import hmac
import ipaddress

from starlette.requests import Request

from rankwise.records import Tenant
from rankwise.serve.gateway.directory import Directory
from rankwise.serve.gateway.errors import Refusal, unauthorized

LONGEST = 256  # characters of a key; ours are shorter


async def tenant_of(request: Request, directory: Directory) -> Tenant:
    """Raises Refusal (401), the same for every kind of key that is not valid."""
    secret = _bearer(request)
    tenant = None if secret is None else await directory.tenant_of(secret)
    if tenant is None:
        raise unauthorized()
    return tenant


def allow_metrics(request: Request, token: str | None) -> None:
    """Names of tenants are among the metrics: with a token for its holders, without one for this machine alone.

    Raises Refusal (404): whoever may not read them is not told that they are here.
    """
    if token is None:
        host = request.client.host if request.client else ""
        allowed = _is_loopback(host)
    else:
        allowed = hmac.compare_digest((_bearer(request) or "").encode(), token.encode())
    if not allowed:
        raise Refusal(404, "Not Found", code="not_found")


def _bearer(request: Request) -> str | None:
    given = request.headers.getlist("authorization")
    if len(given) != 1:
        return None
    scheme, _, secret = given[0].partition(" ")
    secret = secret.strip()
    return secret if scheme.lower() == "bearer" and 0 < len(secret) <= LONGEST else None


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
