"""One gateway: its parts, put together, and the way of one request through them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from rankwise.errors import RankwiseError
from rankwise.records import AdapterVersion
from rankwise.serve.adapterstore import AdapterStore
from rankwise.serve.canary import differs, same_template
from rankwise.serve.dispatch import Dispatch
from rankwise.serve.engine import AdapterFiles, AdapterRefused, Engine
from rankwise.serve.gateway.directory import Base, Directory, Poll
from rankwise.serve.gateway.errors import unavailable
from rankwise.serve.gateway.limits import Usage
from rankwise.serve.gateway.logs import log
from rankwise.serve.gateway.metrics import Metrics
from rankwise.serve.gateway.settings import Settings
from rankwise.serve.registry import Registry
from rankwise.serve.residents import Residents
from rankwise.text.template import ChatText


class Gateway:
    """
    Attributes:
        closing: it takes no new requests.
        open: requests that are answered or wait.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Engine,
        registry: Registry,
        store: AdapterStore,
        base: Base,
        slots: int,
        memory_bytes: int | None = None,
        planned_hit_rate: Callable[[int, int], float | None] = lambda tenants, slots: None,
        metrics_token: str | None = None,
    ):
        """
        Args:
            slots, memory_bytes: adapters that may be loaded at once, and the bytes of their files.
            planned_hit_rate: the share of hits to expect of (tenants, slots).
            metrics_token: what a reader of /metrics must show; None: only readers on this machine are answered.
        """
        self.settings, self.engine, self.base, self.metrics_token = settings, engine, base, metrics_token
        self.metrics, self.usage = Metrics(), Usage()
        self.directory = Directory(registry, base, allow_base=settings.allow_base, metrics=self.metrics)
        self.residents = Residents(
            engine,
            slots=slots,
            memory_bytes=memory_bytes,
            examine=self._examine,
            wanted=self.directory.is_known,
            loaded=self.metrics.loads.observe,
        )
        self.dispatch = Dispatch(
            engine,
            self.residents,
            retries=settings.retries,
            engine_seconds=settings.engine_seconds,
            slot_seconds=settings.slot_seconds,
            request_seconds=settings.request_seconds,
            resumed=self.metrics.resumed.inc,
        )
        self.poll = Poll(self.directory, registry, self.usage, self.metrics, self._changed)
        self.metrics.watch(engine, self.residents, lambda: self._planned)
        self._planned_hit_rate = planned_hit_rate
        self._planned: float | None = None
        self._store = store
        self._files: dict[str, tuple[AdapterFiles, ChatText]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.open, self.closing = 0, False

    # Life

    async def start(self) -> None:
        """Bring the engine up and begin to look at the registry. Raises as `Engine.start`, and RegistryError."""
        await self.directory.look()
        await self.engine.start()
        self._keep(asyncio.create_task(self._plan()))
        self._keep(asyncio.create_task(self.poll.run(self.settings.poll_seconds)))

    async def stop(self) -> None:
        """Tell the registry what was used, and end the engine."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.poll.once()
        await self.engine.stop()

    def ready(self) -> bool:
        return not self.closing and self.engine.state().alive

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """While a request is open. Raises Refusal (503) where none is taken."""
        if self.closing:
            raise unavailable("This server is shutting down.", 1, "shutting_down")
        if self.open >= self.settings.max_open:
            raise unavailable(f"{self.open} requests are open, as many as are taken at once.", 1, "overloaded")
        self.open += 1
        self.metrics.open.set(self.open)
        try:
            yield
        finally:
            self.open -= 1
            self.metrics.open.set(self.open)

    # Adapters

    async def files(self, version: AdapterVersion) -> tuple[AdapterFiles, ChatText]:
        """What the engine loads, and how its text is read. Raises RankwiseError where the store does not give it."""
        if version.name not in self._files:
            folder = await asyncio.to_thread(self._store.open, version.sha256)
            files = AdapterFiles(version.name, folder, version.method, version.rank, version.bytes)
            chat = await asyncio.to_thread(self._text, folder)
            same_template(chat, version.template_hash, version.name)
            self._files[version.name] = (files, chat)
        return self._files[version.name]

    def _text(self, folder: Path) -> ChatText:
        """Of an adapter's folder; the base's where the adapter has none of its own."""
        if not (folder / "tokenizer.json").is_file():
            return self.base.chat
        chat = ChatText.from_folder(folder)
        if (chat.tokenizer_hash, chat.template_hash, chat.stop_token_ids) == self._identity:
            return self.base.chat
        return chat

    @property
    def _identity(self) -> tuple[str, str | None, tuple[int, ...]]:
        return self.base.chat.tokenizer_hash, self.base.chat.template_hash, self.base.chat.stop_token_ids

    async def _examine(self, files: AdapterFiles) -> None:
        known = self._files.get(files.name)  # gone where its tenant was removed while a request of it goes on
        await differs(self.engine, files, self.base.chat if known is None else known[1])

    def _changed(self) -> None:
        """After a change of the registry: load what takes a loaded version's place, let go what was removed."""
        known = self.directory.is_known
        self._files = {name: files for name, files in self._files.items() if known(name)}
        self._keep(asyncio.create_task(self.residents.drop()))
        self._keep(asyncio.create_task(self._plan()))
        loaded = {files.name for files in self.residents.resident()}
        at_work = {name.rpartition("@")[0] for name in loaded}
        for tenant in self.directory.tenants():
            active = [version for version in tenant.versions if version.version == tenant.active]
            if tenant.name in at_work and active and active[0].name not in loaded:
                self._keep(asyncio.create_task(self._load_ahead(active[0])))

    async def _plan(self) -> None:
        """Aside, since a day of requests is simulated for it."""
        tenants = len(self.directory.tenants())
        self._planned = await asyncio.to_thread(self._planned_hit_rate, tenants, self.residents.slots)

    async def _load_ahead(self, version: AdapterVersion) -> None:
        """So that the first request after a promotion does not wait; what hinders it is told to that request."""
        try:
            files, _ = await self.files(version)
            async with self.dispatch.hold(files):
                self.directory.good(version)
        except AdapterRefused as fault:
            self.directory.refuse(version.name, fault.what)
        except RankwiseError as fault:
            log("not loaded ahead", logging.WARNING, adapter=version.name, reason=fault.what)

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
