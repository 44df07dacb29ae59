"""The engine over vLLM's OpenAI server: ids in, ids out, adapters loaded and unloaded at run time."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from rankwise.errors import RankwiseError
from rankwise.files import cache_folder
from rankwise.methods.unmerged import SLOT_RANKS, slot_rank
from rankwise.serve.engine import AdapterFiles, AdapterRefused, EngineDied, EngineState, Generation, Piece
from rankwise.serve.vllm.arrival import bring, examine_server
from rankwise.serve.vllm.attached import KEY, Attached
from rankwise.serve.vllm.canary import (
    MERGE,
    base_modules,
    examine_files,
    examine_output,
    examine_reading,
    probes,
)
from rankwise.serve.vllm.client import Client, Served
from rankwise.serve.vllm.command import VllmOptions
from rankwise.serve.vllm.interpreter import find_interpreter
from rankwise.serve.vllm.null import NULL, write_null
from rankwise.serve.vllm.server import Server
from rankwise.serve.vllm.stream import ServerFault
from rankwise.serve.vllm.supervised import Supervised
from rankwise.text.template import ChatText


class VllmEngine:
    """`Engine` over one server of vLLM. Make it by `supervised` or `attached`.

    Attributes:
        base_name: the name that the server is asked for the base by.
    """

    def __init__(
        self,
        server: Server,
        model: Path,
        *,
        adapters: bool,
        max_rank: int,
        max_model_len: int | None,
        batch: int,
        zeros: Path | None,
    ):
        """
        Args:
            model: folder of the base, whose tokenizer and template the server is held against.
            adapters: will there be any?
            max_rank: of the server's slots.
            max_model_len: tokens that the server must at least take; None: whatever it takes.
            batch: requests that it computes at once.
            zeros: folder for the base as an adapter (null.py), which it is asked as once there are others; None: on a
                GPU that is not needed.
        """
        self._server, self._model = server, model
        self._adapters, self._max_rank = adapters, max_rank
        self._max_model_len, self._batch, self._zeros = max_model_len, batch, zeros
        self._resident: dict[str, AdapterFiles] = {}
        self._open: dict[int, asyncio.Queue[Piece | RankwiseError]] = {}
        self._loading = asyncio.Lock()
        self.base_name = ""

    @classmethod
    def supervised(cls, options: VllmOptions, tell: Callable[[str], None] = lambda line: None) -> "VllmEngine":
        """A server of our own; `tell` gets a line on what it does, for a person.

        Raises:
            UsageError, RankwiseError: no interpreter that has vLLM (`find_interpreter`), or a rank it has no slots of.
        """
        interpreter = find_interpreter(options.python)
        rank = slot_rank(options.max_rank) or 0
        return cls(
            Supervised(options, interpreter, tell),
            options.model,
            zeros=options.log.parent if interpreter.cpu else None,
            adapters=options.slots > 0,
            max_rank=rank,
            max_model_len=options.max_model_len,
            batch=options.max_num_seqs,
        )

    @classmethod
    def attached(
        cls,
        url: str,
        model: Path,
        *,
        adapters: bool = True,
        max_model_len: int | None = None,
        batch: int = 256,
        zeros: Path | None = None,
        gpu: bool = False,
        key_variable: str = KEY,
        tell: Callable[[str], None] = lambda line: None,
    ) -> "VllmEngine":
        """Somebody else's server. It tells neither its slots nor its batch nor its device: an adapter too large is
        refused by it, and `batch` is only for the numbers of `state`.

        Args:
            zeros: as of `__init__`, readable by the server; None: in our cache folder.
            gpu: does it run on one? Else it is asked for the base as for an adapter once there are others.

        Raises:
            UsageError: no such address.
        """
        server = Attached(url, key_variable=key_variable, tell=tell)
        return cls(
            server,
            model,
            adapters=adapters,
            max_rank=SLOT_RANKS[-1],
            max_model_len=max_model_len,
            batch=batch,
            zeros=None if gpu else zeros or cache_folder() / "vllm",
        )

    @property
    def served(self) -> Served:
        """What the server said of itself when it came up."""
        return self._served

    @property
    def address(self) -> tuple[str, str]:
        """Address and key of the server that is up: for whoever measures it without us, and for tests."""
        return self._server.client.url, self._server.client.key or ""

    async def start(self) -> None:
        """Raises ModelError: not this base, or it cannot be loaded; RankwiseError: it did not come up."""
        self._chat = await asyncio.to_thread(ChatText.from_folder, self._model)
        self._modules = await asyncio.to_thread(base_modules, self._model)
        await self._server.start(self)

    async def stop(self) -> None:
        self.down("the engine was stopped")
        await self._server.stop()

    def state(self) -> EngineState:
        alive, count = self._server.alive, len(self._open)
        running = min(count, self._batch) if alive else 0
        return EngineState(
            alive=alive,
            starts=self._server.starts,
            resident=tuple(self._resident),
            running=running,
            waiting=count - running,
            resident_bytes=self._server.resident_bytes,
        )

    # -- adapters

    async def load(self, adapter: AdapterFiles) -> None:
        """Files looked at, loaded, read and heard; an adapter that fails is unloaded again. Raises as `Engine.load`."""
        async with self._loading:
            if adapter.name in self._resident:
                return
            if not self._adapters:
                raise AdapterRefused(f"{adapter.name}: vLLM was started without adapters", fix="start it with slots")
            await asyncio.to_thread(examine_files, adapter, self._modules, self._max_rank)
            start, client = self._server.starts, self._living()
            await self._asked(self._base_beside(client, adapter.folder))
            await self._asked(bring(client, adapter.name, adapter.folder))
            try:
                await self._asked(self._examined(client, adapter))
            except RankwiseError:
                with suppress(RankwiseError):
                    await client.unload(adapter.name)
                raise
            if self._server.starts != start or not self._server.alive:
                raise EngineDied("vLLM died while an adapter was loaded")
            self._resident[adapter.name] = adapter

    async def unload(self, name: str) -> None:
        async with self._loading:
            if self._resident.pop(name, None) is not None and self._server.alive:
                with suppress(ServerFault, EngineDied):
                    await self._server.client.unload(name)

    async def _base_beside(self, client: Client, folder: Path) -> None:
        """From the first adapter on the base is asked for as one."""
        if self._zeros is not None and self.base_name != NULL:
            zeros = await asyncio.to_thread(write_null, folder, self._zeros)
            await bring(client, NULL, zeros)
            self.base_name = NULL

    async def _examined(self, client: Client, adapter: AdapterFiles) -> None:
        await examine_reading(client, adapter, self._chat)
        longest = self._served.max_model_len - 1
        await examine_output(client, self.base_name, adapter.name, probes(self._chat, longest))

    # -- answers

    async def generate(self, asked: Generation) -> AsyncGenerator[Piece, None]:
        """Raises as `Engine.generate`; RankwiseError: vLLM refuses the request itself."""
        told: asyncio.Queue[Piece | RankwiseError] = asyncio.Queue()
        client = self._living()
        if asked.adapter is not None and asked.adapter not in self._resident:
            raise EngineDied(f"{asked.adapter} is not loaded in vLLM (any more)")
        reading = asyncio.create_task(self._read(client, asked, told))
        self._open[id(told)] = told
        try:
            while True:
                piece = await told.get()
                if isinstance(piece, RankwiseError):
                    raise piece
                yield piece
                if piece.finish is not None:
                    return
        finally:
            self._open.pop(id(told), None)
            reading.cancel()  # closes the stream, and vLLM drops the request
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, client: Client, asked: Generation, told: "asyncio.Queue[Piece | RankwiseError]") -> None:
        """A task of its own, so that an answer ends when the server is found dead, and not when its socket says so."""
        try:
            async with aclosing(client.complete(asked.adapter or self.base_name, asked)) as pieces:
                async for piece in pieces:
                    told.put_nowait(piece)
        except ServerFault as fault:
            told.put_nowait(await self._fault(client, asked, fault))
        except RankwiseError as error:
            self._server.suspect()
            told.put_nowait(error)

    async def _fault(self, client: Client, asked: Generation, fault: ServerFault) -> RankwiseError:
        """Is it the request's, or the server's?"""
        if fault.status == 404 and asked.adapter is not None:
            self._server.suspect()
            return EngineDied(f"vLLM has lost {asked.adapter}")
        if fault.status >= 500 and await client.health() != "well":
            self._server.suspect()
            return EngineDied(f"vLLM died: {fault.what}")
        return fault

    # -- what its server tells

    async def up(self, client: Client) -> None:
        """Raises ModelError: not the base that we read for; RankwiseError: no adapters can be loaded."""
        self._served = await examine_server(
            client, self._chat, self._model, max_model_len=self._max_model_len, adapters=self._adapters
        )
        self.base_name = NULL if self._zeros is not None and NULL in self._served.adapters else self._served.base

    def down(self, why: str) -> None:
        self._resident.clear()
        for told in self._open.values():
            told.put_nowait(EngineDied(why))

    async def lost(self, client: Client) -> bool:
        resident = set(self._resident)
        return bool(resident) and not resident | ({NULL} & {self.base_name}) <= set((await client.served()).adapters)

    def _living(self) -> Client:
        if not self._server.alive:
            raise EngineDied("vLLM is not up")
        return self._server.client

    async def _asked(self, asked: Coroutine[Any, Any, None]) -> None:
        """A fault of the server while an adapter is brought: is it there at all?"""
        try:
            await asked
        except EngineDied:
            self._server.suspect()
            raise
        except ServerFault as fault:
            if await self._server.client.health() != "well":
                self._server.suspect()
                raise EngineDied(f"vLLM died: {fault.what}") from None
            raise AdapterRefused(f"vLLM cannot answer with this adapter: {fault.what}", fix=MERGE) from None
