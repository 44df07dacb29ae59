"""Requests to the engine, and on again where its process died: an accepted request ends with an answer or with a clear
error.

What was emitted stands: the prompt goes in again with it, so that a greedy answer goes on as it would have. A sampled
one goes on with other draws, and penalties count from where it was taken up again.
"""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from rankwise.errors import RankwiseError
from rankwise.serve.engine import AdapterFiles, AdapterRefused, Engine, EngineDied, Generation, Piece
from rankwise.serve.residents import NoSlot, Residents

LOOKED = 0.05  # seconds between looks at an engine that starts again


class AnswerLost(RankwiseError):
    """An answer that could not be ended: the engine died too often, or did not come back in time."""


class TooSlow(RankwiseError):
    """An answer took longer than one may."""


class Dispatch:
    """
    Attributes:
        resumed: called whenever an answer is taken up again.
    """

    def __init__(
        self,
        engine: Engine,
        residents: Residents,
        *,
        retries: int,
        engine_seconds: float,
        slot_seconds: float,
        request_seconds: float,
        resumed: Callable[[], None] = lambda: None,
    ):
        """
        Args:
            retries: times that one answer is taken up again.
            engine_seconds: for which an engine that starts again is waited for.
            slot_seconds: for which the adapter is waited for then.
            request_seconds: that one answer may take.
        """
        self.engine, self._residents = engine, residents
        self._retries, self._engine_seconds, self._slot_seconds = retries, engine_seconds, slot_seconds
        self._request_seconds = request_seconds
        self.resumed = resumed

    @asynccontextmanager
    async def hold(self, files: AdapterFiles) -> AsyncIterator[None]:
        """The adapter is loaded, and stays; an engine that dies meanwhile is waited for.

        Raises:
            AdapterRefused: it cannot be served.
            NoSlot: all slots stayed in use.
            AnswerLost: the engine did not come back.
        """
        async with AsyncExitStack() as held:
            for attempt in range(self._retries + 1):
                await self._alive()
                try:
                    await held.enter_async_context(self._residents.hold(files, self._slot_seconds))
                    break
                except EngineDied as death:
                    if attempt == self._retries:
                        raise AnswerLost(f"the engine died whenever {files.name} was loaded: {death.what}") from None
            yield

    async def answer(self, asked: Generation) -> AsyncGenerator[Piece, None]:
        """The answer piece by piece. The caller holds the adapter.

        Raises:
            AnswerLost: the engine did not answer in spite of all retries.
            TooSlow: the time of one answer is over.
        """
        end = asyncio.get_running_loop().time() + self._request_seconds
        emitted: list[int] = []
        for attempt in range(self._retries + 1):
            start = self.engine.state().starts
            try:
                await self._alive()
                start = self.engine.state().starts
                if asked.adapter is not None and attempt > 0:
                    await self._residents.ensure(asked.adapter, self._slot_seconds)
                async with aclosing(self._pieces(asked, emitted, end)) as pieces:
                    async for piece in pieces:
                        yield piece
                        if piece.finish is not None:
                            return
                raise EngineDied("the engine ended an answer without saying why")
            except (AnswerLost, TooSlow):
                raise
            except (NoSlot, AdapterRefused) as fault:
                raise AnswerLost(f"after a restart of the engine the adapter was not loaded: {fault.what}") from None
            except RankwiseError as fault:
                if not isinstance(fault, EngineDied) and self.engine.state().starts == start:
                    raise
                if attempt == self._retries:
                    raise AnswerLost(f"the engine died {attempt + 1} times during this answer: {fault.what}") from None
                self.resumed()
            if len(emitted) >= asked.max_new_tokens:
                yield Piece((), finish="length")
                return

    async def _pieces(self, asked: Generation, emitted: list[int], end: float) -> AsyncGenerator[Piece, None]:
        rest = dataclasses.replace(
            asked, prompt=(*asked.prompt, *emitted), max_new_tokens=asked.max_new_tokens - len(emitted)
        )
        async with aclosing(self.engine.generate(rest)) as pieces:  # type: ignore[type-var]
            try:
                while True:
                    async with asyncio.timeout_at(end):
                        piece = await anext(pieces)
                    emitted.extend(piece.tokens)
                    yield piece
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise TooSlow(f"the answer took longer than {self._request_seconds:g} seconds") from None

    async def _alive(self) -> None:
        try:
            async with asyncio.timeout(self._engine_seconds):
                while not self.engine.state().alive:
                    await asyncio.sleep(LOOKED)
        except TimeoutError:
            raise AnswerLost(f"the engine did not come back within {self._engine_seconds:g} seconds") from None
