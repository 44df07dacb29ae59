"""A whole server for tests: adapters with secrets, registry, store, embedded engine, uvicorn on a free port."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from benchmarks.serve.house import MET, Place
from benchmarks.serve.secret import QUESTION, Secret

from rankwise.observe.model import weights_hash
from rankwise.records import AdapterVersion, Gate
from rankwise.serve.embedded.engine import EmbeddedEngine
from rankwise.serve.embedded.settings import Settings as EngineSettings
from rankwise.serve.gateway.directory import Base
from rankwise.serve.gateway.gateway import Gateway
from rankwise.serve.gateway.server import Server, listen
from rankwise.serve.gateway.settings import Settings
from rankwise.serve.registry import Registry
from rankwise.text.template import ChatText

ASKED = [{"role": "user", "content": QUESTION}]
MISSED = MET.model_copy(update={"value": 0.5, "met": False})


@dataclass
class House:
    """A server that runs in a thread of its own.

    Attributes:
        keys: tenant -> a key of its own.
    """

    base: Base
    place: Place
    gateway: Gateway
    url: str
    keys: dict[str, str]

    @property
    def registry(self) -> Registry:
        return self.place.registry

    def add(
        self, tenant: str, secret: Secret, *, promote: bool = True, gate: Gate = MET, **changes: Any
    ) -> AdapterVersion:
        """The files of a secret as the newest version of a tenant, with a key for a new one."""
        added = self.place.add(tenant, secret.folder, gate, **changes)
        if tenant not in self.keys:
            self.keys[tenant] = self.registry.new_key(tenant)
        if promote:
            self.registry.promote(tenant, added.version)
        return added

    def client(self, tenant: str | None = None, **options: Any) -> httpx.Client:
        headers = {} if tenant is None else {"authorization": f"Bearer {self.keys[tenant]}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, **options)

    def ask(self, tenant: str, model: str | None = None, **changes: Any) -> httpx.Response:
        with self.client(tenant) as client:
            return client.post("/v1/chat/completions", json=question(model or tenant, **changes))

    def answer(self, tenant: str, model: str | None = None, **changes: Any) -> str:
        """The text of one answer, which must be there."""
        found = self.ask(tenant, model, **changes)
        assert found.status_code == 200, found.text
        return str(found.json()["choices"][0]["message"]["content"])

    def until(self, holds: Any, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, self.told()
            time.sleep(0.05)

    def told(self) -> str:
        """What a test that waited in vain wants to know."""
        places = {
            name: (place.open, place.start, place.closing) for name, place in self.gateway.residents._places.items()
        }
        return f"it did not come to that: {self.gateway.engine.state()}, {places}, {self.gateway.directory.tenants()}"

    def kill_engine(self) -> None:
        """The engine's process, as the machine running out of memory would."""
        for child in psutil.Process().children(recursive=True):
            if any("embedded" in part for part in child.cmdline()):
                child.kill()

    def metric(self, name: str) -> float:
        """Sum over all labels."""
        lines = httpx.get(f"{self.url}/metrics", trust_env=False).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + " ", name + "{")))


def question(model: str, **changes: Any) -> dict[str, Any]:
    return {"model": model, "messages": ASKED, "temperature": 0, "max_tokens": 32} | changes


def base_of(folder: Path) -> Base:
    return Base(str(folder), folder, weights_hash(folder), ChatText.from_folder(folder))


@contextmanager
def serving(base: Base, place: Path, *, slots: int = 8, dtype: Any = "fp32", **limits: Any) -> Iterator[House]:
    """A server over `base`, with nothing in its registry yet; ended with all its processes."""
    there = Place(place, base.folder)
    engine = EmbeddedEngine(
        EngineSettings(base.folder, dtype=dtype, threads=1, kv_bytes=256 << 20), place / "engine.log"
    )
    settings = Settings(**{"max_length": 256, "allow_base": True, "poll_seconds": 0.1} | limits)
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
        assert up.wait(120) and not faults, faults
        yield House(base, there, gateway, address[0], {})
    finally:
        server.should_exit = True
        thread.join(60)
        listening.close()
        there.registry.close()
    assert not faults, faults
    assert not thread.is_alive()
