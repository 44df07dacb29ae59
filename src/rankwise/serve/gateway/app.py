"""The HTTP routes."""

from datetime import datetime
from typing import Any

from fastapi import FastAPI, Request, Security
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException

from rankwise.records import Tenant
from rankwise.serve.gateway.auth import allow_metrics, tenant_of
from rankwise.serve.gateway.bodies import read_body
from rankwise.serve.gateway.calls import Arrival, Call, Calls
from rankwise.serve.gateway.completions import Answer
from rankwise.serve.gateway.directory import BASE
from rankwise.serve.gateway.errors import Refusal, no_such_model
from rankwise.serve.gateway.gateway import Gateway
from rankwise.serve.gateway.schemas import ChatRequest, CompletionRequest, parse
from rankwise.serve.gateway.streaming import Reply
from rankwise.version import __version__

_KEY = Security(HTTPBearer(auto_error=False, description="An API key of `rankwise tenants`."))
_ERROR: dict[str, Any] = {
    "description": "Refused, in the shape of OpenAI's API.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "required": ["message", "type", "param", "code"],
                        "properties": {
                            "message": {"type": "string"},
                            "type": {"type": "string"},
                            "param": {"type": ["string", "null"]},
                            "code": {"type": ["string", "null"]},
                        },
                    }
                },
            }
        }
    },
}
_ANSWER: dict[str, Any] = {
    "description": "The answer; with `stream` as server-sent events.",
    "content": {
        "application/json": {"schema": {"type": "object", "required": ["id", "object", "choices", "usage"]}},
        "text/event-stream": {},
    },
}


def create_app(gateway: Gateway) -> FastAPI:
    """An ASGI application around a gateway that somebody else starts and stops."""
    app = FastAPI(title="Rankwise", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(Calls, gateway=gateway)
    app.add_exception_handler(Refusal, _refuse)
    app.add_exception_handler(HTTPException, _refuse)
    _add_answers(app, gateway)
    _add_models(app, gateway)
    _add_states(app, gateway)
    return app


def _add_answers(app: FastAPI, gateway: Gateway) -> None:
    async def answer(request: Request, kind: type[ChatRequest] | type[CompletionRequest]) -> Response:
        call: Call = request.state.call
        tenant = await _admit(request, gateway)
        gateway.usage.take_turn(tenant.name, tenant.limits)
        body = await read_body(request, gateway.settings)
        arrival: Arrival | None = getattr(request.state, "arrival", None)
        call.arrived = arrival.at if arrival is not None else call.began
        asked = parse(kind, body)  # type: ignore[type-var]
        call.model = asked.model if asked.model.partition("@")[0] in (tenant.name, BASE) else None
        return Reply(gateway, call, Answer(gateway, call, tenant, asked))

    @app.post(
        "/v1/chat/completions",
        openapi_extra=_body(ChatRequest),
        responses=_responses(400, 401, 404, 408, 413, 415, 429, 503) | {200: _ANSWER},
        dependencies=[_KEY],
    )
    async def chat_completions(request: Request) -> Response:
        """The next turn of a conversation."""
        return await answer(request, ChatRequest)

    @app.post(
        "/v1/completions",
        openapi_extra=_body(CompletionRequest),
        responses=_responses(400, 401, 404, 408, 413, 415, 429, 503) | {200: _ANSWER},
        dependencies=[_KEY],
    )
    async def completions(request: Request) -> Response:
        """How a text goes on."""
        return await answer(request, CompletionRequest)


def _add_models(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/v1/models", responses=_responses(401, 503), dependencies=[_KEY])
    async def models(request: Request) -> dict[str, Any]:
        """The models that the key can ask: the active version by the tenant's name, each version by its number."""
        tenant = await _admit(request, gateway)
        return {"object": "list", "data": [_model(*one, tenant.name) for one in gateway.directory.models(tenant)]}

    @app.get("/v1/models/{model}", responses=_responses(401, 404, 503), dependencies=[_KEY])
    async def model(request: Request, model: str) -> dict[str, Any]:
        """One of them."""
        tenant = await _admit(request, gateway)
        found = [_model(*one, tenant.name) for one in gateway.directory.models(tenant) if one[0] == model]
        if not found:
            raise no_such_model(model)
        return found[0]


def _add_states(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/ready", responses=_responses(503))
    async def ready() -> JSONResponse:
        """The engine is up with the base in it, and new requests are taken."""
        state = gateway.engine.state()
        said = {"ready": gateway.ready(), "engine": state.alive, "starts": state.starts, "closing": gateway.closing}
        return JSONResponse(said, 200 if gateway.ready() else 503)

    @app.get("/metrics", include_in_schema=False)
    async def read_metrics(request: Request) -> Response:
        """For Prometheus."""
        allow_metrics(request, gateway.metrics_token)
        return Response(gateway.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})


async def _admit(request: Request, gateway: Gateway) -> Tenant:
    tenant = await tenant_of(request, gateway.directory)
    request.state.call.tenant = tenant.name
    return tenant


def _model(name: str, since: str, owner: str) -> dict[str, Any]:
    created = int(datetime.fromisoformat(since).timestamp())
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


async def _refuse(request: Request, fault: Exception) -> Response:
    if isinstance(fault, HTTPException):
        fault = Refusal(fault.status_code, str(fault.detail), code=_slug(str(fault.detail)))
    assert isinstance(fault, Refusal)
    request.state.call.refused = fault.code
    return JSONResponse(fault.body(), fault.status, fault.headers())


def _slug(words: str) -> str:
    return words.lower().replace(" ", "_")


def _responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    return dict.fromkeys(codes, _ERROR)


def _body(kind: Any) -> dict[str, Any]:
    """The request body for the OpenAPI document; definitions are written out, since each body has its own."""
    schema = TypeAdapter(kind).json_schema()
    definitions = schema.pop("$defs", {})
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(schema, definitions)}}}
    }


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(entry, definitions) for entry in node]
    if not isinstance(node, dict):
        return node
    if isinstance(name := node.get("$ref"), str):
        return _inlined(definitions[name.rpartition("/")[2]], definitions)
    return {key: _inlined(entry, definitions) for key, entry in node.items()}
