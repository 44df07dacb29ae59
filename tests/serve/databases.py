"""Registries to test on: a SQLite file, and a real PostgreSQL server of its own where its programs are installed."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from rankwise.records import AdapterVersion, Gate
from rankwise.serve.registry import Registry
from tests.builders import sha

DEBIAN = Path("/usr/lib/postgresql")
MADE = 600  # seconds for one of its programs: three on an idle machine, minutes on a busy one
MET = Gate(requirement="facts>=0.5", name="facts", comparison=">=", limit=0.5, value=0.7, unit="share", met=True)
MISSED = Gate(requirement="facts>=0.9", name="facts", comparison=">=", limit=0.9, value=0.7, unit="share", met=False)


def added(registry: Registry, tenant: str = "clinic", **changes: Any) -> AdapterVersion:
    """A version of a rank-8 LoRA that met its gate."""
    given: dict[str, Any] = {
        "method": "lora",
        "rank": 8,
        "bytes": 3_700_000,
        "sha256": sha("a"),
        "base": "embedded",
        "base_hash": sha("b"),
        "template_hash": None,
        "artifact_hash": sha("c"),
        "gates": (MET,),
        **changes,
    }
    return registry.add_version(tenant, **given)


def programs() -> Path | None:
    """The folder of PostgreSQL's server programs; None where it is not installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return next((p for p in sorted(DEBIAN.glob("*/bin"), reverse=True) if (p / "initdb").is_file()), None)


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a server that runs as long as the block, without a database of ours."""
    binaries = programs()
    if binaries is None:
        pytest.skip("PostgreSQL's server is not installed: `apt-get install postgresql`")
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root; Debian's package makes this user
    with tempfile.TemporaryDirectory(prefix="rankwise-postgres.") as name:
        folder = Path(name)
        if user:
            shutil.chown(folder, user)
        with _running(binaries, folder / "data", user) as url:
            yield url


def empty_database(server: str) -> str:
    """The URL of a new one in a server that runs: a server takes a minute to make on a busy machine, this no time."""
    import psycopg

    name = f"test_{uuid4().hex}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server}/{name}"


@contextmanager
def _running(binaries: Path, data: Path, user: str | None) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(*command: object) -> None:
        subprocess.run([str(c) for c in command], user=user, cwd="/", check=True, capture_output=True, timeout=MADE)

    run(binaries / "initdb", "-D", data, "-A", "trust", "-U", "rankwise", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    run(binaries / "pg_ctl", "-D", data, "-w", "-l", data.with_name("log"), "-o", options, "start")
    try:
        yield f"postgresql://rankwise@127.0.0.1:{port}"
    finally:
        run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop")
