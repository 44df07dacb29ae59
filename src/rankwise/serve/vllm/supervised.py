"""A server of our own: started, watched, started again, and ended with all its processes."""

import asyncio
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from rankwise.errors import ModelError, RankwiseError
from rankwise.serve.vllm import guard
from rankwise.serve.vllm.client import Client
from rankwise.serve.vllm.command import HOST, VllmOptions, server_command, server_environment
from rankwise.serve.vllm.interpreter import Interpreter
from rankwise.serve.vllm.server import STEADY, Owner, Server, pause_after

TOLD = 5.0  # seconds between lines on a server that comes up
LINES = 12  # of its log, where it did not
_CAUSE = re.compile(r"(?:^|[\s.])(\w*(?:Error|Exception): .+)$")
_HARMLESS = re.compile(r"\b(?:WARNING|INFO|DEBUG)\b")  # lines that quote errors and are none
# Words of the errors that vLLM raises over a model, whatever their class.
_MODEL = ("architectures", "does not recognize", "safetensors", "max_model_len", "config.json", "No such file")


class Supervised(Server):
    """vLLM as a child of this process."""

    def __init__(self, options: VllmOptions, interpreter: Interpreter, tell: Callable[[str], None] = lambda line: None):
        super().__init__(tell)
        self.options, self._interpreter = options, interpreter
        server_command(options, interpreter, 0)  # what cannot be meant is said before anything starts
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0

    async def start(self, owner: Owner) -> None:
        """Raises as `Server.start`; ModelError: no such folder."""
        if not (self.options.model / "config.json").is_file():
            raise ModelError(f"{self.options.model} is no model folder", expected="a folder with config.json")
        await super().start(owner)

    async def stop(self) -> None:
        await super().stop()
        await self._end()

    async def _keep(self, owner: Owner, first: "asyncio.Future[None]") -> None:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._come_up(owner)
                self.starts, self.alive = self.starts + 1, True
                if not first.done():
                    first.set_result(None)
                why = await self._until_gone(owner, self._ended)
                self.alive = False
            except RankwiseError as error:
                if not first.done():
                    first.set_exception(error)
                    return
                why = error.what
            owner.down(why)
            await self._end()
            failures = 0 if time.monotonic() - began > STEADY else failures + 1
            pause = pause_after(failures - 1 if failures else 0)
            self._tell(f"{why}; vLLM starts again in {pause:g} s")
            await asyncio.sleep(pause)

    async def _come_up(self, owner: Owner) -> None:
        """Raises RankwiseError: it ended, took too long, or is not to be used."""
        self._spawn(owner)
        began = told = time.monotonic()
        while await self.client.health() != "well":
            if why := self._ended():
                raise self._failure(f"vLLM did not come up: {why}")
            took = time.monotonic() - began
            if took > self.options.start_seconds:
                raise self._failure(f"vLLM was not up after {took:.0f} s")
            if time.monotonic() - told > TOLD:
                told = time.monotonic()
                self._tell(f"vLLM comes up, {took:.0f} s: {self._last_line()}")
            await asyncio.sleep(0.5)
        await owner.up(self.client)
        await asyncio.to_thread(self._weigh)
        self._tell(f"vLLM {self._interpreter.version} is up after {time.monotonic() - began:.0f} s")

    def _spawn(self, owner: Owner) -> None:
        port, key = _free_port(), secrets.token_urlsafe(32)
        command = server_command(self.options, self._interpreter, port)
        self.options.log.parent.mkdir(parents=True, exist_ok=True)
        with self.options.log.open("ab") as log:
            self._log_from = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(Path(guard.__file__).resolve()), *command],
                stdin=subprocess.PIPE,  # closed when this process ends, however it does: the guard's sign
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for this process
                env=server_environment(self.options, self._interpreter, key),
            )
        self.client = Client(f"http://{HOST}:{port}", key)

    def _ended(self) -> str | None:
        """Why its process is gone; None while it is there."""
        if self._process is None or self._process.poll() is None:
            return None
        said = re.findall(r"vLLM's server ended with code (-?\d+)", self._log())
        return f"its process ended with code {said[-1]}" if said else "its process was killed"

    def _weigh(self) -> None:
        """What its processes hold."""
        self.resident_bytes = None
        if self._process is not None:
            with suppress(psutil.Error):
                family = psutil.Process(self._process.pid).children(recursive=True)
                self.resident_bytes = sum(one.memory_info().rss for one in family)

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, guard.GRACE + 5)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a guard that was killed itself has ended nobody
        await asyncio.to_thread(process.wait)
        await self.client.close()
        self.resident_bytes = None

    def _log(self) -> str:
        """What this start wrote, its end where that is long."""
        with suppress(OSError), self.options.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_from, end - 200_000))
            return log.read().decode("utf-8", "replace")
        return ""

    def _last_line(self) -> str:
        lines = [line.strip() for line in self._log().splitlines() if line.strip()]
        return lines[-1][-120:] if lines else "nothing told yet"

    def _failure(self, what: str) -> RankwiseError:
        """The first error of its log is the cause; those after it are what came of it."""
        log = self._log()
        found = cause_of(log)
        cause = f": {found[:300]}" if found else ""
        kind = ModelError if any(word in cause for word in _MODEL) else RankwiseError
        end = "\n".join(line[:300] for line in log.splitlines()[-LINES:])
        return kind(what + cause, fix=f"see {self.options.log}; it ends with\n{end}")


def cause_of(log: str) -> str | None:
    """The first error of a log, in its own words; pydantic's stand on the line after it."""
    lines = log.splitlines()
    for place, line in enumerate(lines):
        found = None if _HARMLESS.search(line) else _CAUSE.search(line)
        if found is not None:
            after = lines[place + 1].strip() if "validation error" in found[1] and place + 1 < len(lines) else ""
            return f"{found[1]} {after}".strip()
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
