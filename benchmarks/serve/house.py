"""A server of its own for a measurement: a registry, a store, tenants, and `rankwise serve` as a process."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from rankwise.observe.model import observe_model, weights_hash
from rankwise.records import AdapterVersion, Gate
from rankwise.serve.adapterstore import AdapterStore
from rankwise.serve.registry import Registry
from rankwise.text.template import ChatText

MET = Gate(requirement="proof>=1", name="proof", comparison=">=", limit=1, value=1, unit="share", met=True)
UP_SECONDS = 300


@dataclass
class Place:
    """Registry and store in one folder, over one base."""

    folder: Path
    base: Path

    def __post_init__(self) -> None:
        self.registry = Registry(str(self.folder / "registry.sqlite"))
        self.store = AdapterStore(str(self.folder / "adapters"))
        self._facts = observe_model(str(self.base))
        self._hash = weights_hash(self.base)
        self._template = ChatText.from_folder(self.base).template_hash

    def add(self, tenant: str, folder: Path, gate: Gate = MET, **changes: Any) -> AdapterVersion:
        """Take an adapter in, without the run that would prove it."""
        told: dict[str, Any] = {
            "method": "lora",
            "rank": 8,
            "bytes": sum(file.stat().st_size for file in folder.iterdir()),
            "sha256": self.store.put(folder, self._facts),
            "base": str(self.base),
            "base_hash": self._hash,
            "template_hash": self._template,
            "artifact_hash": "0" * 64,
            "gates": [gate],
        }
        return self.registry.add_version(tenant, **(told | changes))


@dataclass(frozen=True)
class Running:
    """`rankwise serve` as a process."""

    url: str
    pid: int
    told: dict[str, Any]

    def engine(self) -> psutil.Process | None:
        """The engine's process: the child with most memory; None while there is none."""
        children = psutil.Process(self.pid).children(recursive=True)
        sized = [(_resident(child), child) for child in children]
        return max(sized, key=lambda one: one[0])[1] if sized else None

    def metrics(self) -> dict[str, float]:
        """Each line of /metrics by its name with labels."""
        lines = httpx.get(f"{self.url}/metrics", trust_env=False).text.splitlines()
        parts = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in parts}


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


@contextmanager
def served(place: Place, options: Sequence[str] = (), *, up_seconds: float = UP_SECONDS) -> Iterator[Running]:
    """Until the block ends; the server must then end by itself, with exit code 0.

    Args:
        up_seconds: for which it is waited for.
    """
    command = [sys.executable, "-m", "rankwise", "serve", "--model", str(place.base), "--port", "0", "--json"]
    command += ["--registry", str(place.folder / "registry.sqlite"), "--adapters", place.store.root, *options]
    with (place.folder / "server.log").open("wb") as log, (place.folder / "ready.json").open("wb") as ready:
        process = subprocess.Popen(command, stdout=ready, stderr=log)
    try:
        told = _ready(process, place.folder, up_seconds)
        yield Running(told["url"], told["pid"], told)
    finally:
        process.terminate()
        code = process.wait(60)
    if code != 0:
        raise RuntimeError(f"the server ended with {code}: see {place.folder / 'server.log'}")


def _ready(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if text := (folder / "ready.json").read_text():
            try:
                told: dict[str, Any] = json.loads(text)
            except ValueError:  # half written
                continue
            if "url" not in told:  # it says why it does not come up
                break
            return told
        time.sleep(0.2)
    raise RuntimeError(f"the server did not come up:\n{(folder / 'server.log').read_text()[-3000:]}")
