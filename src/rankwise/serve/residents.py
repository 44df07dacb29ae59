"""Which adapters lie in the engine: the ones used last, within slots and bytes, and never one less than those in use.

Loading one does not stop the others. An adapter that others wait for is loaded once (single flight). Where every slot
is in use, the one that was loaded first takes no new request until it is free, so that a busy tenant cannot keep
another one out for ever. But each has its turn: where more tenants ask than there are slots, an adapter that made room
after each answer would be loaded again for each.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from rankwise.errors import RankwiseError
from rankwise.serve.engine import AdapterFiles, AdapterRefused, Engine, EngineDied

TURN = 4.0  # times as long as loading took, an adapter stays while its tenant asks on
LONGEST_TURN = 6.0  # seconds: a fifth of what a request waits for a slot
PAUSE = 0.25  # seconds without a request, after which its tenant does not ask on


class NoSlot(RankwiseError):
    """An adapter was not loaded for as long as a request may wait: every slot stayed in use, or it takes longer."""


@dataclass(slots=True)
class _Place:
    """One adapter.

    Attributes:
        start: of the engine's process that holds it (`EngineState.starts`); None: it is not loaded.
        taken: a slot is its own, since it is loaded or being loaded.
        open: requests that need it.
        closing: it is to go when nobody needs it, and takes nobody in until then.
        since, left: when it was loaded, and when nobody needed it any more (monotonic seconds).
    """

    files: AdapterFiles
    start: int | None = None
    taken: bool = False
    open: int = 0
    closing: bool = False
    loading: "asyncio.Task[None] | None" = None
    since: float = 0.0
    left: float = 0.0


@dataclass(slots=True)
class Counts:
    """What happened so far."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    refused: int = 0


class Residents:
    """The adapters of one engine.

    Attributes:
        counts: hits, misses, evictions; `loaded` is called with the seconds of each load.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        slots: int,
        memory_bytes: int | None,
        examine: Callable[[AdapterFiles], Awaitable[None]],
        wanted: Callable[[str], bool] = lambda name: True,
        loaded: Callable[[float], None] = lambda seconds: None,
    ):
        """
        Args:
            slots: adapters at once.
            memory_bytes: of the files of all of them; None: the slots alone count.
            wanted: is an adapter of this name to stay once nobody needs it? Those of removed tenants are not.
            examine: asked after each load, raises AdapterRefused where the adapter is not to be served.
        """
        self._engine, self.slots, self._memory = engine, slots, memory_bytes
        self._examine, self._wanted, self._loaded = examine, wanted, loaded
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._room = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._start = 0
        self._turn = 0.0  # seconds; nothing was loaded yet
        self.counts = Counts()

    @contextlib.asynccontextmanager
    async def hold(self, files: AdapterFiles, seconds: float) -> AsyncIterator[None]:
        """The adapter is loaded, and stays.

        Args:
            seconds: for which to wait until it is.

        Raises:
            AdapterRefused: the engine cannot carry it, or its canary failed.
            NoSlot: all slots stayed in use.
            EngineDied: while it was loaded.
        """
        place = await self._enter(files, seconds)
        try:
            await self.ensure(files.name, seconds)
            yield
        finally:
            place.open -= 1
            place.left = time.monotonic()
            await self._told()
            if place.open == 0 and not self._wanted(files.name):
                await self.drop()

    async def ensure(self, name: str, seconds: float) -> None:
        """Load what a holder needs, again where the engine was started anew since. Raises as `hold`."""
        self._forget_the_dead()
        place = self._places[name]
        if place.start is not None:
            self.counts.hits += 1
            return
        self.counts.misses += 1
        if place.loading is None or place.loading.done():
            place.loading = asyncio.create_task(self._load(place))
            place.loading.add_done_callback(_seen)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(place.loading)
        except TimeoutError:
            raise NoSlot(f"{name} was not loaded within {seconds:g} seconds") from None

    def resident(self) -> list[AdapterFiles]:
        """The least recently used first."""
        self._forget_the_dead()
        return [place.files for place in self._places.values() if place.start is not None]

    async def drop(self) -> None:
        """Unload what is not wanted any more and nobody needs."""
        for name, place in list(self._places.items()):
            if place.open == 0 and place.start is not None and not self._wanted(name):
                await self._evict(name, place)

    async def _enter(self, files: AdapterFiles, seconds: float) -> _Place:
        """Its place, counted as needed; waits while the place is closing."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: not self._is_closing(files.name))
        except TimeoutError:
            raise NoSlot(f"no slot became free within {seconds:g} seconds") from None
        place = self._places.setdefault(files.name, _Place(files))
        self._places.move_to_end(files.name)
        place.open += 1
        return place

    def _is_closing(self, name: str) -> bool:
        place = self._places.get(name)
        return place is not None and place.closing

    async def _load(self, place: _Place) -> None:
        try:
            await self._make_room(place)
            began = time.perf_counter()
            place.start, place.since = await self._loaded_by(place.files), time.monotonic()
            took = time.perf_counter() - began
            self._turn = min(LONGEST_TURN, TURN * took)
            self._loaded(took)
        except AdapterRefused:
            self.counts.refused += 1
            with contextlib.suppress(EngineDied):
                await self._engine.unload(place.files.name)
            raise
        finally:
            if place.start is None:
                place.taken = False
            await self._told()

    async def _loaded_by(self, files: AdapterFiles) -> int:
        """Load and examine; returns the start of the process that holds it."""
        start = self._engine.state().starts
        fault: RankwiseError | None = None
        try:
            await self._engine.load(files)
            await self._examine(files)
        except RankwiseError as found:
            fault = found
        if self._engine.state().starts != start:  # then whatever went wrong says nothing of the adapter
            raise EngineDied("the engine was started anew while an adapter was loaded")
        if fault is not None:
            raise fault
        return start

    async def _make_room(self, place: _Place) -> None:
        """Take a slot, from the least recently used that nobody needs; first come, first served."""
        if self._memory is not None and place.files.bytes > self._memory:
            raise AdapterRefused(
                f"{place.files.name} has {place.files.bytes:,} bytes, and adapters may take {self._memory:,}",
                fix="raise --memory-gb",
            )
        async with self._room:
            try:
                while not self._fits(place):
                    if place.open == 0:
                        raise NoSlot("nobody waits for it any more")
                    await self._free_one()
                place.taken = True
            finally:
                for other in self._places.values():  # whoever was to go and did not: it takes requests in again
                    other.closing = other.closing and other.start is None
                await self._told()

    def _fits(self, place: _Place) -> bool:
        self._forget_the_dead()
        there = [other.files.bytes for other in self._places.values() if other.taken]
        within = self._memory is None or sum(there) + place.files.bytes <= self._memory
        return len(there) < self.slots and within

    async def _free_one(self) -> None:
        loaded = [(name, place) for name, place in self._places.items() if place.start is not None]
        for name, place in loaded:
            if place.open == 0 and self._had_its_turn(place):
                await self._evict(name, place)
                return
        if loaded and not any(place.closing for _, place in loaded):
            oldest = min((place for _, place in loaded), key=lambda place: place.since)
            oldest.closing = self._had_its_turn(oldest)
        async with self._changed:
            with contextlib.suppress(TimeoutError):  # looked at again: turns end, and an engine that dies tells nobody
                await asyncio.wait_for(self._changed.wait(), PAUSE)

    def _had_its_turn(self, place: _Place) -> bool:
        """Or its tenant asks no more."""
        now = time.monotonic()
        return now - place.since >= self._turn or (place.open == 0 and now - place.left >= PAUSE)

    async def _evict(self, name: str, place: _Place) -> None:
        """Its slot is free at once; a request that comes meanwhile finds a new place, and loads after the unloading."""
        place.closing, place.start = True, None
        try:
            with contextlib.suppress(EngineDied):
                await self._engine.unload(name)
            self.counts.evictions += 1
        finally:
            if self._places.get(name) is place:
                del self._places[name]
            await self._told()

    def _forget_the_dead(self) -> None:
        """What an earlier process of the engine held is not loaded any more."""
        start = self._engine.state().starts
        if start == self._start:
            return
        self._start = start
        for name, place in list(self._places.items()):
            if place.start is not None and place.start != start:
                place.start, place.taken, place.closing = None, False, False
            if place.open == 0 and place.start is None and (place.loading is None or place.loading.done()):
                del self._places[name]

    async def _told(self) -> None:
        for name, place in list(self._places.items()):
            idle = place.open == 0 and place.start is None and not place.taken
            if idle and not place.closing and (place.loading is None or place.loading.done()):
                del self._places[name]
        async with self._changed:
            self._changed.notify_all()


def _seen(task: "asyncio.Task[None]") -> None:
    """Its fault is told to whoever waits; where nobody does any more, asyncio is not to complain."""
    if not task.cancelled():
        task.exception()
