"""A server that somebody else started: asked over HTTP, never started or ended."""

import asyncio
import os
from collections.abc import Callable

from rankwise.errors import RankwiseError, UsageError
from rankwise.serve.vllm.client import Client
from rankwise.serve.vllm.server import Owner, Server, pause_after

KEY = "RANKWISE_VLLM_API_KEY"  # the variable that the server's key is read from: arguments are seen by everybody


class Attached(Server):
    """vLLM by its address."""

    def __init__(self, url: str, *, key_variable: str = KEY, tell: Callable[[str], None] = lambda line: None):
        """
        Args:
            url: with or without `/v1` at its end.
            key_variable: environment variable that holds its key; unset: no key is sent.

        Raises:
            UsageError: no http(s) address, or one with a password in it.
        """
        super().__init__(tell)
        if not url.startswith(("http://", "https://")) or "@" in url:
            raise UsageError(
                f"{url.rsplit('@', 1)[-1]} is no address of a server",
                expected="http://HOST:PORT without user and password",
                fix=f"put vLLM's key into the environment variable {key_variable}",
            )
        self._url, self._key = url.rstrip("/").removesuffix("/v1"), os.environ.get(key_variable)

    async def stop(self) -> None:
        await super().stop()
        if self._task is not None:
            await self.client.close()

    async def _keep(self, owner: Owner, first: "asyncio.Future[None]") -> None:
        self.client = Client(self._url, self._key)
        failures = 0
        while True:
            try:
                await owner.up(self.client)
                self.starts, self.alive, failures = self.starts + 1, True, 0
                if not first.done():
                    first.set_result(None)
                self._tell(f"vLLM at {self._url} answers")
                why = await self._until_gone(owner, lambda: None)
                self.alive = False
            except RankwiseError as error:
                if not first.done():
                    first.set_exception(error)
                    return
                why = error.what
            owner.down(why)
            self._tell(f"{why}; asked again in {pause_after(failures):g} s")
            await asyncio.sleep(pause_after(failures))
            failures += 1
