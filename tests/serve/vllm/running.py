"""A real vLLM for tests: one event loop, one server, and eight tenants that each know a secret."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from benchmarks.serve.secret import QUESTION, Secret

from rankwise.errors import RankwiseError, UsageError
from rankwise.serve.engine import AdapterFiles, Generation, Piece
from rankwise.serve.vllm import VllmEngine
from rankwise.serve.vllm.interpreter import find_interpreter
from rankwise.text.template import ChatText

T = TypeVar("T")


def why_not_here() -> str | None:
    """Why the tests of a real vLLM cannot run here, with what to install; None: they can."""
    try:
        find_interpreter()
    except (RankwiseError, UsageError) as error:
        return str(error)
    return None


def files(secret: Secret, version: int = 1) -> AdapterFiles:
    size = (secret.folder / "adapter_model.safetensors").stat().st_size
    return AdapterFiles(f"{secret.name}@{version}", secret.folder, "lora", 8, size)


@dataclass
class Running:
    """An engine on a loop of its own, which runs while something is asked of it."""

    engine: VllmEngine
    chat: ChatText
    base: Path
    loop: asyncio.AbstractEventLoop

    def do(self, asked: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asked)

    def together(self, *asked: Coroutine[Any, Any, T]) -> list[T]:
        async def all_of_them() -> list[T]:
            return list(await asyncio.gather(*asked))

        return self.do(all_of_them())

    def asking(self, adapter: str | None, question: str = QUESTION, **more: Any) -> Generation:
        prompt = self.chat.encode_prompt([{"role": "user", "content": question}])
        settings = {"max_new_tokens": 32, "stop_token_ids": self.chat.stop_token_ids, **more}
        return Generation("test", adapter, tuple(prompt), **settings)

    async def pieces(self, asked: Generation, engine: VllmEngine | None = None) -> list[Piece]:
        return [piece async for piece in (engine or self.engine).generate(asked)]

    async def tokens(self, asked: Generation, engine: VllmEngine | None = None) -> list[int]:
        return [token for piece in await self.pieces(asked, engine) for token in piece.tokens]

    async def says(self, adapter: str | None, question: str = QUESTION, engine: VllmEngine | None = None) -> str:
        return self.chat.decode(await self.tokens(self.asking(adapter, question), engine))

    async def load(self, secrets: tuple[Secret, ...]) -> None:
        for secret in secrets:
            await self.engine.load(files(secret))

    async def until(self, holds: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"it did not come to that: {self.engine.state()}"
            await asyncio.sleep(0.05)


def processes(words: str) -> list[psutil.Process]:
    """Descendants of this process with these words in their command."""
    found = []
    for one in psutil.Process().children(recursive=True):
        try:
            if words in " ".join(one.cmdline()):
                found.append(one)
        except psutil.Error:
            continue
    return found
