"""One accepted request: its adapter, its prompts, its choices, as pieces of text while they come."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

from rankwise.errors import AdapterError, RankwiseError
from rankwise.records import AdapterVersion, Tenant
from rankwise.serve.dispatch import AnswerLost, TooSlow
from rankwise.serve.engine import AdapterRefused, Finish
from rankwise.serve.gateway.answers import AnswerText, TokenSeen
from rankwise.serve.gateway.calls import Call
from rankwise.serve.gateway.directory import not_served
from rankwise.serve.gateway.errors import Refusal, unavailable
from rankwise.serve.gateway.gateway import Gateway
from rankwise.serve.gateway.limits import Spent
from rankwise.serve.gateway.logs import log
from rankwise.serve.gateway.prompts import Prompt, Sampling, chat_prompts, completion_prompts, sampling
from rankwise.serve.gateway.schemas import ChatRequest, CompletionRequest
from rankwise.serve.residents import NoSlot
from rankwise.text.template import ChatText


@dataclass(frozen=True, slots=True)
class Delta:
    """
    Attributes:
        index: of the choice.
        text: what it goes on with.
        offset: characters of an echoed prompt before the answer.
        at: perf_counter when its tokens came.
    """

    index: int
    text: str
    seen: tuple[TokenSeen, ...]
    finish: Finish | None
    offset: int
    at: float


class Answer:
    """
    Attributes:
        chat: how the adapter that answers reads text; there from the first delta on.
    """

    def __init__(self, gateway: Gateway, call: Call, tenant: Tenant, asked: ChatRequest | CompletionRequest):
        self._gateway, self._call, self._tenant, self.asked = gateway, call, tenant, asked
        self.chat: ChatText = gateway.base.chat

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """The choices as they come, each with its `finish` in its last one.

        Raises:
            Refusal: what keeps it from being answered, or from being answered to its end.
        """
        try:
            async with aclosing(self._of_first_served()) as deltas:
                async for delta in deltas:
                    yield delta
        except RankwiseError as fault:
            refusal = _refusal(fault)
            self._gateway.metrics.lost.labels(refusal.code or "other").inc()
            raise refusal from None

    async def _of_first_served(self) -> AsyncGenerator[Delta, None]:
        """By the version that is asked for; where it cannot be served, by the one that answered before."""
        directory = self._gateway.directory
        versions: list[AdapterVersion | None] = [*directory.choose(self._tenant, self.asked.model)] or [None]
        why = ""
        for version in versions:
            try:
                async with aclosing(self._of(version)) as deltas:
                    async for delta in deltas:
                        yield delta
                return
            except AdapterRefused as fault:  # never after the first delta
                assert version is not None
                why = fault.what
                directory.refuse(version.name, why)
        assert versions[0] is not None
        raise not_served(versions[0].name, why)

    async def _of(self, version: AdapterVersion | None) -> AsyncGenerator[Delta, None]:
        gateway, call = self._gateway, self._call
        async with AsyncExitStack() as held:
            files = None
            if version is not None:
                files, self.chat = await gateway.files(version)
            prompts = await self._prompts()
            how = sampling(self.asked, prompts, gateway.settings)
            fed, choices = sum(len(prompt.ids) for prompt in prompts), self.asked.n or 1
            tokens = fed + len(prompts) * choices * how.max_new_tokens
            spent = held.enter_context(gateway.usage.open(self._tenant.name, self._tenant.limits, tokens))
            if version is not None and files is not None:
                began = time.perf_counter()
                await held.enter_async_context(gateway.dispatch.hold(files))
                call.waited, call.adapter = time.perf_counter() - began, version.name
                gateway.directory.good(version)
            spent.prompt = call.prompt_tokens = fed
            asked = [(prompt, choice) for prompt in prompts for choice in range(choices)]
            deltas = await held.enter_async_context(
                aclosing(self._choices(asked, how, None if version is None else version.name, spent))
            )
            call.submitted = time.perf_counter()
            try:
                async for delta in deltas:
                    call.first_token = call.first_token or delta.at
                    yield delta
            finally:
                call.answer_tokens = spent.answer
                gateway.metrics.tokens(self._tenant.name, spent.prompt, spent.answer)

    async def _prompts(self) -> list[Prompt]:
        asked = self.asked
        prompts = (
            await chat_prompts(asked, self.chat)
            if isinstance(asked, ChatRequest)
            else await completion_prompts(asked, self.chat)
        )
        if self._gateway.settings.log_prompts:
            said = [self.chat.decode(prompt.ids, skip_special_tokens=False) for prompt in prompts]
            log("prompt", request_id=self._call.id, tenant=self._tenant.name, prompts=said)
        return prompts

    async def _choices(
        self, asked: Sequence[tuple[Prompt, int]], how: Sampling, adapter: str | None, spent: Spent
    ) -> AsyncGenerator[Delta, None]:
        """All at once, each in its order."""
        if len(asked) == 1:
            async with aclosing(self._choice(0, *asked[0], how, adapter, spent)) as deltas:
                async for delta in deltas:
                    yield delta
            return
        queue: asyncio.Queue[Delta | BaseException | None] = asyncio.Queue()

        async def follow(index: int, prompt: Prompt, choice: int) -> None:
            try:
                async with aclosing(self._choice(index, prompt, choice, how, adapter, spent)) as deltas:
                    async for delta in deltas:
                        queue.put_nowait(delta)
                queue.put_nowait(None)
            except Exception as fault:
                queue.put_nowait(fault)

        tasks = [asyncio.create_task(follow(index, *one)) for index, one in enumerate(asked)]
        try:
            ended = 0
            while ended < len(tasks):
                found = await queue.get()
                if isinstance(found, BaseException):
                    raise found
                if found is None:
                    ended += 1
                else:
                    yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _choice(
        self, index: int, prompt: Prompt, choice: int, how: Sampling, adapter: str | None, spent: Spent
    ) -> AsyncGenerator[Delta, None]:
        text = AnswerText(self.chat, how.stops, prompt.ids if prompt.goes_on else ())
        generation = how.generation(f"{self._call.id}-{index}", adapter, prompt, self.chat, choice)
        offset, before = len(prompt.echo), prompt.echo
        async with aclosing(self._gateway.dispatch.answer(generation)) as pieces:
            async for piece in pieces:
                at, known = time.perf_counter(), len(text.tokens)
                out = before + text.add(piece)
                spent.answer += len(text.tokens) - known
                seen = tuple(text.seen())
                if out or seen or text.finish:
                    yield Delta(index, out, seen, text.finish, offset, at)
                    before = ""
                if text.finish:
                    break
        if self._gateway.settings.log_prompts:
            said = self.chat.decode(text.tokens)
            log("answer", request_id=self._call.id, tenant=self._tenant.name, choice=index, answer=said)


def _refusal(fault: RankwiseError) -> Refusal:
    """What a client is told of a fault that is not its own."""
    if isinstance(fault, NoSlot):
        return unavailable(f"The adapter is not there yet: {fault.what}. Try again.", 1, "no_adapter_slot")
    if isinstance(fault, AnswerLost):
        return unavailable("The engine was lost during this answer and it could not be ended.", 2, "answer_lost")
    if isinstance(fault, TooSlow):
        return unavailable("The answer took longer than one may.", 10, "answer_too_slow")
    if isinstance(fault, AdapterError):
        log("adapter not read", logging.ERROR, reason=fault.what)
        return unavailable("The adapter cannot be read at the moment.", 5, "adapter_unavailable")
    log("engine refused a request", logging.ERROR, reason=fault.what)
    return unavailable("The engine cannot take this request.", 5, "engine_refused")
