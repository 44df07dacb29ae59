"""The parent's side of the embedded engine: starts the child, starts it again when it dies, and passes on what it says.
Torch-free; nothing here waits for the child but what was asked of it.
"""

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from rankwise.errors import ModelError, RankwiseError
from rankwise.serve.embedded.frames import frame, read_frame
from rankwise.serve.embedded.settings import Settings
from rankwise.serve.engine import AdapterFiles, AdapterRefused, EngineDied, EngineState, Generation, Piece

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a child that died is started again; doubled each time
STEADY = 60.0  # seconds of life after which a death counts as the first again
READY = 900.0  # seconds until a child must have loaded its base
FAREWELL = 5.0  # seconds to end by itself
LAST_LINES = 20  # of the log, told when it does not come up
KINDS: dict[str, type[RankwiseError]] = {"ModelError": ModelError, "AdapterRefused": AdapterRefused}


class EmbeddedEngine:
    """Engine (see `rankwise.serve.engine`) with transformers in a child process."""

    def __init__(self, settings: Settings, log: Path) -> None:
        """`log`: file that what the child prints is appended to."""
        self._settings, self._log = settings, log
        self._starts = 0
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._keys = count(1)
        self._open: dict[int, asyncio.Queue[Piece | RankwiseError]] = {}
        self._loads: dict[str, asyncio.Future[None]] = {}
        self._unloads: dict[str, asyncio.Future[None]] = {}
        self._resident: dict[str, int] = {}
        self._counts = (0, 0)

    async def start(self) -> None:
        """See `Engine.start`."""
        up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._supervisor = asyncio.create_task(self._supervise(up))
        await up

    async def stop(self) -> None:
        """See `Engine.stop`."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        await self._end()
        self._fail(EngineDied("the engine was stopped"))

    async def load(self, adapter: AdapterFiles) -> None:
        """See `Engine.load`."""
        if adapter.name in self._resident:
            return
        waiting = self._loads.get(adapter.name)
        if waiting is None:
            writer = self._writer_of("load")
            waiting = self._loads[adapter.name] = asyncio.get_running_loop().create_future()
            writer.write(frame({"do": "load", "name": adapter.name, "folder": str(adapter.folder.resolve())}))
        await asyncio.shield(waiting)

    async def unload(self, name: str) -> None:
        """See `Engine.unload`."""
        if name not in self._resident or self._writer is None:
            return
        waiting = self._unloads.setdefault(name, asyncio.get_running_loop().create_future())
        del self._resident[name]
        self._writer.write(frame({"do": "unload", "name": name}))
        with contextlib.suppress(EngineDied):
            await asyncio.shield(waiting)

    async def generate(self, asked: Generation) -> AsyncIterator[Piece]:
        """See `Engine.generate`.

        Raises:
            RankwiseError: it cannot be answered: its adapter is not loaded, or it takes more positions or memory than
                there are.
        """
        writer, key = self._writer_of("answer"), next(self._keys)
        pieces: asyncio.Queue[Piece | RankwiseError] = asyncio.Queue()
        self._open[key] = pieces
        told = {name: value for name, value in asdict(asked).items() if name != "request_id"}
        try:
            writer.write(frame({"do": "generate", "key": key, **told}))
            while True:
                piece = await pieces.get()
                if isinstance(piece, RankwiseError):
                    raise piece
                if piece.finish:
                    self._open.pop(key, None)
                yield piece
                if piece.finish:
                    return
        finally:
            if self._open.pop(key, None) is not None and not writer.is_closing():
                writer.write(frame({"do": "cancel", "key": key}))

    def state(self) -> EngineState:
        """See `Engine.state`."""
        running, waiting = self._counts if self._open else (0, 0)
        return EngineState(
            alive=self._writer is not None,
            starts=self._starts,
            resident=tuple(self._resident),
            running=running,
            waiting=waiting,
            resident_bytes=self._memory(),
        )

    def adapter_bytes(self) -> dict[str, int]:
        """Memory of each loaded adapter in the child."""
        return dict(self._resident)

    def _memory(self) -> int | None:
        if self._process is None:
            return None
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return None

    def _writer_of(self, what: str) -> asyncio.StreamWriter:
        if self._writer is None:
            raise EngineDied(f"the engine is not up, so it cannot {what}", fix="it is being started again: ask again")
        return self._writer

    async def _supervise(self, up: asyncio.Future[None]) -> None:
        """Keep a child alive until this task is cancelled; the first one that does not come up is told to `start`."""
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                reader = await self._begin()
            except RankwiseError as error:
                await self._end()
                if not up.done():
                    up.set_exception(error)
                    return
            else:
                if not up.done():
                    up.set_result(None)
                await self._listen(reader)
            self._disconnect()
            self._fail(EngineDied("the engine's process ended", fix="it is being started again: ask again"))
            await self._end()
            pause = FIRST_PAUSE if time.monotonic() - began > STEADY else min(2 * pause, LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _begin(self) -> asyncio.StreamReader:
        """Start a child and wait until it has its base."""
        self._starts += 1
        self._log.parent.mkdir(parents=True, exist_ok=True)
        said_before = self._log.stat().st_size if self._log.exists() else 0
        ours, its = socket.socketpair()
        try:
            with its, self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "rankwise.serve.embedded.child", str(its.fileno())),
                    pass_fds=[its.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | {"PYTHONPATH": _python_path()},
                    start_new_session=True,  # Ctrl-C is the parent's to answer
                )
        except BaseException:
            ours.close()
            raise
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(frame({**asdict(self._settings), "base": str(self._settings.base)}))
        try:
            first = await asyncio.wait_for(read_frame(reader), READY)
        except (TimeoutError, asyncio.CancelledError) as error:
            writer.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise RankwiseError(f"the engine did not load its base in {READY:g} s") from error
        if first is None or first["say"] != "ready":
            writer.close()
            raise _not_up(first, self._log, said_before)
        self._writer = writer
        return reader

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while (message := await read_frame(reader)) is not None:
            self._heard(message)

    def _heard(self, message: dict[str, Any]) -> None:
        match message["say"]:
            case "pieces":
                self._counts = (message["running"], message["waiting"])
                for key, token, logprob, likely, finish in message["pieces"]:
                    if key in self._open:
                        self._open[key].put_nowait(_piece(token, logprob, likely, finish))
            case "rejected":
                if message["key"] in self._open:
                    self._open.pop(message["key"]).put_nowait(_error(message))
            case "loaded":
                self._resident[message["name"]] = message["bytes"]
                _settle(self._loads, message["name"], None)
            case "refused":
                _settle(self._loads, message["name"], _error(message))
            case "unloaded":
                _settle(self._unloads, message["name"], None)

    def _fail(self, error: RankwiseError) -> None:
        """Tell everyone who waits."""
        for pieces in self._open.values():
            pieces.put_nowait(error)
        self._open.clear()
        for waiting in (self._loads, self._unloads):
            for name in list(waiting):
                _settle(waiting, name, error)

    def _disconnect(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._resident.clear()

    async def _end(self) -> None:
        """No child is left: its socket closes, on which it ends; if it does not, it is killed."""
        self._disconnect()
        process, self._process = self._process, None
        if process is None:
            return
        try:
            await asyncio.wait_for(process.wait(), FAREWELL)
        except (TimeoutError, asyncio.CancelledError) as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if isinstance(error, asyncio.CancelledError):
                raise


def _piece(token: int | None, logprob: float | None, likely: list[list[Any]], finish: Any) -> Piece:
    if token is None:
        return Piece((), finish=finish)
    if logprob is None:
        return Piece((token,), finish=finish)
    return Piece((token,), (logprob,), (tuple((int(i), float(p)) for i, p in likely),), finish)


def _settle(waiting: dict[str, asyncio.Future[None]], name: str, error: RankwiseError | None) -> None:
    future = waiting.pop(name, None)
    if future is None or future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
        future.exception()  # looked at: nobody may be waiting any more


def _error(message: dict[str, Any]) -> RankwiseError:
    kind = KINDS.get(message["kind"], RankwiseError)
    return kind(message["what"], expected=message["expected"], fix=message["fix"])


def _not_up(first: dict[str, Any] | None, log: Path, since: int) -> RankwiseError:
    if first is not None and first["say"] == "failed":
        return _error(first)
    with log.open("rb") as file:
        file.seek(since)
        lines = file.read().decode(errors="replace").strip().splitlines()[-LAST_LINES:]
    return RankwiseError(
        "the engine did not come up; the end of its log:\n" + "\n".join(lines), fix=f"the whole log is {log}"
    )


def _python_path() -> str:
    """The folder that holds this rankwise, first: the child must run the same code."""
    ours = str(Path(__file__).resolve().parents[3])
    return os.pathsep.join(p for p in (ours, os.environ.get("PYTHONPATH", "")) if p)
