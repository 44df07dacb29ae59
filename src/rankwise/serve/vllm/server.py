"""What a server of vLLM is to the engine, whoever started it: it comes up, is watched, may go away and come back."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Protocol

from rankwise.errors import RankwiseError
from rankwise.serve.vllm.client import Client

LOOKS = 2.0  # seconds between looks at a server that is well
SOON = 0.1  # after a request that failed
SILENCES = 5  # looks in a row without an answer before a server counts as gone: it may only be busy
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0)  # seconds before the next try, the last one again and again
STEADY = 120.0  # seconds; one that lived so long starts again at the first pause


class Owner(Protocol):
    """The engine, as its server sees it."""

    async def up(self, client: Client) -> None:
        """A server answers; raises RankwiseError where it is not to be used."""

    def down(self, why: str) -> None:
        """It does not any more, and what was loaded is gone."""

    async def lost(self, client: Client) -> bool:
        """Does a server that is well lack what was loaded? It was then started anew meanwhile."""


class Server(ABC):
    """
    Attributes:
        client: of the server that is up; of the last one while none is.
        alive: is one up?
        starts: how often one came up.
        resident_bytes: of its processes, where they are ours.
    """

    client: Client
    alive = False
    starts = 0
    resident_bytes: int | None = None

    def __init__(self, tell: Callable[[str], None] = lambda line: None):
        """
        Args:
            tell: gets a line on what happens, for a person.
        """
        self._tell = tell
        self._suspected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, owner: Owner) -> None:
        """Come up, and be kept up until `stop`. Raises RankwiseError: it did not come up."""
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep(owner, first))
        try:
            await asyncio.wait({first, self._task}, return_when=asyncio.FIRST_COMPLETED)
            await (first if first.done() else self._task)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Watch no more, and end what was started."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.alive = False

    def suspect(self) -> None:
        """A request failed: look now whether the server is still there. Until that is known, nobody is sent to it."""
        self.alive = False
        self._suspected.set()

    @abstractmethod
    async def _keep(self, owner: Owner, first: "asyncio.Future[None]") -> None:
        """Have a server up for as long as it is not cancelled; `first` is done when the first one is."""

    def _weigh(self) -> None:
        """Read `resident_bytes`; of a server that is not ours they are unknown."""
        self.resident_bytes = None

    async def _until_gone(self, owner: Owner, ended: Callable[[], str | None]) -> str:
        """Watch a server that is up; returns why it is not any more.

        Args:
            ended: says why its process is gone; None while it is there, or not ours.
        """
        silent = 0
        while True:
            await self._wait()
            if why := ended():
                return why
            health = await self.client.health()
            silent = silent + 1 if health == "silent" else 0
            if health == "dead":
                return "vLLM's engine died"
            if silent >= SILENCES:
                return f"vLLM did not answer {SILENCES} times"
            if health == "well":
                if await _quietly(owner.lost(self.client)):
                    return "vLLM was started anew: what was loaded is gone"
                self.alive = True
            await asyncio.to_thread(self._weigh)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(LOOKS):
                await self._suspected.wait()
            await asyncio.sleep(SOON)  # whoever was suspected may be about to end
        except TimeoutError:
            pass
        self._suspected.clear()


async def _quietly(asked: Awaitable[bool]) -> bool:
    """An answer that did not come says nothing: the next look does."""
    try:
        return await asked
    except RankwiseError:
        return False


def pause_after(failures: int) -> float:
    """Seconds before the next try, after so many in a row."""
    return PAUSES[min(failures, len(PAUSES) - 1)]
