"""A server by its address, with tenants and their keys: asked over HTTP, whoever started it and whatever its engine."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from benchmarks.serve.house import MET, Place
from benchmarks.serve.secret import QUESTION, Secret

from rankwise.records import AdapterVersion, Gate
from rankwise.serve.registry import Registry

ASKED = [{"role": "user", "content": QUESTION}]


@dataclass
class Tenancy:
    """
    Attributes:
        keys: tenant -> a key of its own.
        seconds: that an answer, or a change, may take on this machine with this engine.
    """

    place: Place
    url: str
    keys: dict[str, str]
    seconds: float

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
        return httpx.Client(
            base_url=self.url, headers=headers, timeout=max(60, self.seconds), trust_env=False, **options
        )

    def ask(self, tenant: str, model: str | None = None, **changes: Any) -> httpx.Response:
        with self.client(tenant) as client:
            return client.post("/v1/chat/completions", json=question(model or tenant, **changes))

    def answer(self, tenant: str, model: str | None = None, **changes: Any) -> str:
        """The text of one answer, which must be there."""
        found = self.ask(tenant, model, **changes)
        assert found.status_code == 200, found.text
        return str(found.json()["choices"][0]["message"]["content"])

    def until(self, holds: Callable[[], Any], seconds: float | None = None) -> None:
        end = time.monotonic() + (seconds or self.seconds)
        while not holds():
            assert time.monotonic() < end, f"it did not come to that: {self.told()}"
            time.sleep(0.05)

    def told(self) -> str:
        """What a test that waited in vain wants to know."""
        return "\n".join(line for line in self._metrics() if line.startswith("rankwise_"))

    def metric(self, name: str) -> float:
        """Sum over all labels."""
        lines = self._metrics()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + " ", name + "{")))

    def _metrics(self) -> list[str]:
        return httpx.get(f"{self.url}/metrics", trust_env=False, timeout=60).text.splitlines()


def question(model: str, **changes: Any) -> dict[str, Any]:
    return {"model": model, "messages": ASKED, "temperature": 0, "max_tokens": 32} | changes


@contextmanager
def load(asked: Tenancy, tenant: str, right: Callable[[str], bool]) -> Iterator[list[str]]:
    """Two clients that ask without a pause; what was not a right answer is listed."""
    wrong: list[str] = []
    over = threading.Event()
    answered = [0]

    def ask() -> None:
        with asked.client(tenant) as client:
            while not over.is_set():
                found = client.post("/v1/chat/completions", json=question(tenant))
                text = found.json()["choices"][0]["message"]["content"] if found.status_code == 200 else found.text
                if not right(text):
                    wrong.append(text)
                answered[0] += 1

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield wrong
        before = answered[0]
        asked.until(lambda: answered[0] > before + 4)
    finally:
        over.set()
        for thread in threads:
            thread.join(max(60, asked.seconds))
