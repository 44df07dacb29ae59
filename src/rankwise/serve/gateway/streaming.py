"""An answer onto the socket: at once when it is whole, or as server-sent events; given up when the client goes away."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rankwise.serve.gateway import documents
from rankwise.serve.gateway.answers import TokenSeen
from rankwise.serve.gateway.calls import Call
from rankwise.serve.gateway.completions import Answer, Delta
from rankwise.serve.gateway.errors import Refusal, unavailable
from rankwise.serve.gateway.gateway import Gateway
from rankwise.serve.gateway.schemas import ChatRequest

CLIENT_GONE = 499  # as nginx logs it; nobody is there to read it
_EVENTS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Reply(Response):
    """The response to a request that was admitted."""

    def __init__(self, gateway: Gateway, call: Call, answer: Answer):
        super().__init__()
        self._gateway, self._call, self._answer = gateway, call, answer
        self._kind: documents.Kind = "chat" if isinstance(answer.asked, ChatRequest) else "completion"
        self._created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Refusal where nothing was sent yet."""
        async with self._gateway.admitted():
            sending = self._stream(send) if self._answer.asked.stream else self._whole(send)
            if not await _while_connected(receive, sending):
                self._call.status, self._call.refused = CLIENT_GONE, "client_gone"

    async def _whole(self, send: Send) -> None:
        texts: dict[int, list[str]] = {}
        seen: dict[int, list[TokenSeen]] = {}
        finishes: dict[int, str] = {}
        offsets: dict[int, int] = {}
        at = time.perf_counter()
        async with aclosing(self._answer.deltas()) as deltas:
            async for delta in deltas:
                texts.setdefault(delta.index, []).append(delta.text)
                seen.setdefault(delta.index, []).extend(delta.seen)
                finishes[delta.index] = delta.finish or "stop"
                offsets[delta.index], at = delta.offset, delta.at
        choices = [
            documents.whole_choice(
                self._kind, index, "".join(texts[index]), self._logprobs(seen[index], offsets[index]), finishes[index]
            )
            for index in sorted(texts)
        ]
        body = to_json(self._document(False) | {"choices": choices, "usage": self._usage()})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._call.delivered.append(time.perf_counter() - at)

    async def _stream(self, send: Send) -> None:
        """The head goes out with the first token, so that whatever is refused before has a status of its own."""
        async with aclosing(self._answer.deltas()) as deltas:
            opened: set[int] = set()
            try:
                async for delta in deltas:
                    if not opened:
                        await send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
                    await _event(send, *self._chunks(delta, opened))
                    self._call.delivered.append(time.perf_counter() - delta.at)
            except (Refusal, asyncio.CancelledError) as fault:
                stopped = isinstance(fault, asyncio.CancelledError)
                if not opened or (stopped and not self._gateway.closing):
                    raise
                told = unavailable("This server is shutting down.", 1, "shutting_down")
                refusal = fault if isinstance(fault, Refusal) else told
                self._call.refused = refusal.code
                await _event(send, refusal.body())  # and no [DONE]: it is not
            else:
                if self._answer.asked.include_usage:
                    await _event(send, self._document(True) | {"choices": [], "usage": self._usage()})
                await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    def _chunks(self, delta: Delta, opened: set[int]) -> list[dict[str, Any]]:
        usage = {"usage": None} if self._answer.asked.include_usage else {}
        choices = []
        if delta.index not in opened:
            opened.add(delta.index)
            if self._kind == "chat":
                choices.append(documents.chunk_choice(self._kind, delta.index, None, None, None))
        logprobs = self._logprobs(delta.seen, delta.offset)
        if self._kind == "completion":
            choices.append(documents.chunk_choice(self._kind, delta.index, delta.text, logprobs, delta.finish))
        else:
            if delta.text or delta.seen:
                choices.append(documents.chunk_choice(self._kind, delta.index, delta.text, logprobs, None))
            if delta.finish:
                choices.append(documents.chunk_choice(self._kind, delta.index, "", None, delta.finish))
        return [self._document(True) | {"choices": [choice]} | usage for choice in choices]

    def _document(self, chunk: bool) -> dict[str, Any]:
        return documents.document(self._kind, self._call.id, self._created, self._answer.asked.model, chunk=chunk)

    def _logprobs(self, seen: Any, offset: int) -> Any:
        asked = self._answer.asked.logprobs
        if asked is None or asked is False:
            return None
        return documents.logprobs(self._kind, seen, self._answer.chat, offset)

    def _usage(self) -> dict[str, int]:
        return documents.usage(self._call.prompt_tokens, self._call.answer_tokens)


async def _event(send: Send, *events: dict[str, Any]) -> None:
    body = b"".join(b"data: " + to_json(event) + b"\n\n" for event in events)
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _while_connected(receive: Receive, sending: Coroutine[Any, Any, None]) -> bool:
    """Run to its end; False where the client went away before."""
    work, gone = asyncio.create_task(sending), asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return False
        work.result()
        return True
    finally:
        gone.cancel()
        if not work.done():
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, Refusal):
                await work


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
