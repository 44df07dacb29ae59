"""uvicorn around the gateway: clients that are slow on purpose are cut off, and a signal ends it cleanly."""

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rankwise.errors import RankwiseError
from rankwise.serve.gateway.app import create_app
from rankwise.serve.gateway.calls import Arrival
from rankwise.serve.gateway.gateway import Gateway
from rankwise.serve.gateway.logs import log
from rankwise.serve.gateway.settings import Settings

HEAD_BYTES = 16 << 10  # of one request's head
BUFFER_BYTES = 64 << 10  # of an answer that a reader has not taken yet
CONNECTIONS_BESIDE = 256  # idle ones and those of health checks, beside the requests that may be open
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _protocol(settings: Settings) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 with time limits that it does not have: for the head of a request, and for a reader that
    takes nothing.
    """

    class Limited(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=BUFFER_BYTES)
            self.arrival = Arrival(time.perf_counter())
            self.app_state = {**self.app_state, "arrival": self.arrival}
            self.stall: asyncio.TimerHandle | None = None
            self.head: asyncio.TimerHandle | None = None
            self._await_head()

        def data_received(self, data: bytes) -> None:
            self.arrival.at = time.perf_counter()
            served = self.cycle
            super().data_received(data)
            if self.cycle is not served:  # a head is complete
                self._cancel("head")
            elif self.cycle is None or self.cycle.response_complete:
                self._await_head()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.transport.is_closing() and self.transport.get_write_buffer_size():
                self._await_reader()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._await_reader()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._cancel("stall")

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            self._await_reader()

        def connection_lost(self, exc: Exception | None) -> None:
            self._cancel("head")
            self._cancel("stall")
            super().connection_lost(exc)

        def _await_head(self) -> None:
            if self.head is None:
                self.head = self.loop.call_later(settings.header_seconds, self.transport.abort)

        def _await_reader(self) -> None:
            if self.stall is None:
                self.stall = self.loop.call_later(settings.stall_seconds, self.transport.abort)

        def _cancel(self, timer: str) -> None:
            if (set_ := getattr(self, timer)) is not None:
                set_.cancel()
                setattr(self, timer, None)

    return Limited


class Server(uvicorn.Server):
    """
    Attributes:
        fault: what kept the gateway from starting.
    """

    def __init__(self, gateway: Gateway, host: str, port: int, on_ready: Callable[[str, int], None]):
        """
        Args:
            on_ready: called with the address once the first request could be answered.
        """
        settings = gateway.settings
        super().__init__(
            uvicorn.Config(
                create_app(gateway),
                host=host,
                port=port,
                http=_protocol(settings),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=HEAD_BYTES,
                limit_concurrency=settings.max_open + CONNECTIONS_BESIDE,
                timeout_keep_alive=round(settings.idle_seconds),
                timeout_graceful_shutdown=round(settings.drain_seconds),
            )
        )
        self._gateway, self._on_ready = gateway, on_ready
        self.fault: Exception | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Until a signal. Raises what kept the gateway from starting."""
        with self.capture_signals():
            starting = asyncio.create_task(self._start())
            try:
                await self._serve(sockets)
            finally:
                starting.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await starting
                await self._gateway.stop()
        if self.fault is not None:
            raise self.fault

    async def _start(self) -> None:
        """Beside the listening, so that /health answers while the base is being loaded."""
        try:
            await self._gateway.start()
            while not self.started:
                await asyncio.sleep(0.01)
        except Exception as fault:  # it is raised where the server ends
            self.fault, self.should_exit = fault, True
            return
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        self._on_ready(host, port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """No new requests; open ones get their time, then a clear error."""
        self._gateway.closing = True
        log("shutting down", open_requests=self._gateway.open)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that was obeyed is not raised again at the end: it was an order, no accident."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run(gateway: Gateway, host: str, port: int, on_ready: Callable[[str, int], None]) -> None:
    """Serve until SIGINT or SIGTERM; nothing is left running.

    Raises:
        RankwiseError: the address cannot be had, or the engine did not come up.
    """
    listening = listen(host, port)
    server = Server(gateway, host, port, on_ready)
    try:
        asyncio.run(server.serve([listening]))
    finally:
        listening.close()


def listen(host: str, port: int) -> socket.socket:
    """Before the engine is started: a port that is taken is told at once."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, number)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as fault:
        raise RankwiseError(
            f"cannot listen on {host} port {port}: {fault.strerror or fault}",
            fix="choose another --port (0 takes a free one), or end what listens there",
        ) from None
    return listening
