"""A whole server for tests: adapters with secrets, registry, store, embedded engine, uvicorn on a free port."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from benchmarks.serve.house import MET, Place

from rankwise.observe.model import weights_hash
from rankwise.serve.embedded.engine import EmbeddedEngine
from rankwise.serve.embedded.settings import Settings as EngineSettings
from rankwise.serve.gateway.directory import Base
from rankwise.serve.gateway.gateway import Gateway
from rankwise.serve.gateway.server import Server, listen
from rankwise.serve.gateway.settings import Settings
from rankwise.text.template import ChatText
from tests.serve.gateway.tenancy import Tenancy

PATIENCE = 300.0  # seconds that anything may take: a second on an idle machine, minutes on one that is busy
MISSED = MET.model_copy(update={"value": 0.5, "met": False})


@dataclass
class House(Tenancy):
    """A server that runs in a thread of its own."""

    base: Base
    gateway: Gateway

    def told(self) -> str:
        """What a test that waited in vain wants to know."""
        places = {
            name: (place.open, place.start, place.closing) for name, place in self.gateway.residents._places.items()
        }
        return f"{self.gateway.engine.state()}, {places}, {self.gateway.directory.tenants()}"

    def kill_engine(self) -> None:
        """The engine's process, as the machine running out of memory would."""
        for child in psutil.Process().children(recursive=True):
            if any("embedded" in part for part in child.cmdline()):
                child.kill()


def base_of(folder: Path) -> Base:
    return Base(str(folder), folder, weights_hash(folder), ChatText.from_folder(folder))


@contextmanager
def serving(base: Base, place: Path, *, slots: int = 8, dtype: Any = "fp32", **limits: Any) -> Iterator[House]:
    """A server over `base`, with nothing in its registry yet; ended with all its processes."""
    there = Place(place, base.folder)
    engine = EmbeddedEngine(
        EngineSettings(base.folder, dtype=dtype, threads=1, kv_bytes=256 << 20), place / "engine.log"
    )
    usual = {"max_length": 256, "allow_base": True, "poll_seconds": 0.1, "slot_seconds": PATIENCE}
    settings = Settings(**usual | limits)
    gateway = Gateway(
        settings,
        engine=engine,
        registry=there.registry,
        store=there.store,
        base=base,
        slots=slots,
        planned_hit_rate=lambda tenants, slots: 0.5,
    )
    listening, up, address = listen("127.0.0.1", 0), threading.Event(), []

    def ready(host: str, port: int) -> None:
        address.append(f"http://{host}:{port}")
        up.set()

    server = Server(gateway, "127.0.0.1", 0, ready)
    faults: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(server.serve([listening]))
        except BaseException as fault:
            faults.append(fault)
        finally:
            up.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert up.wait(PATIENCE) and not faults, faults
        yield House(there, address[0], {}, PATIENCE, base, gateway)
    finally:
        server.should_exit = True
        thread.join(60)
        listening.close()
        there.registry.close()
    assert not faults, faults
    assert not thread.is_alive()
