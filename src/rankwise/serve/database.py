"""Where the registry of tenants lies: tables, connection, transactions. SQLite in a file, or PostgreSQL by URL.

Every transaction that changes a tenant takes one lock first: SQLite's write lock by BEGIN IMMEDIATE, in PostgreSQL the
one row of `state`. So changes of several processes come one after the other, versions are numbered without gaps or
twins, and `revision` grows by one with each.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from rankwise.errors import RegistryError
from rankwise.files import data_folder

SCHEMA = 1
WAIT_SECONDS = 30  # for another process's transaction
CREATION_LOCK = 72_616_107  # of PostgreSQL's advisory locks; any number that nobody else takes

tables = MetaData()
state = Table(
    "rankwise_state",
    tables,
    Column("only", Integer, primary_key=True),  # one row, 1
    Column("schema", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
)
tenants = Table(
    "rankwise_tenants",
    tables,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("active", Integer),
    Column("removed", String(32)),  # UTC; null: it is served
    Column("limits", Text, nullable=False),  # records.Limits as JSON
    Column("requirements", Text, nullable=False),  # JSON list of what `--require` said
)
versions = Table(
    "rankwise_versions",
    tables,
    Column("tenant", ForeignKey(tenants.c.id), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("record", Text, nullable=False),  # records.AdapterVersion as JSON, never changed
)
keys = Table(
    "rankwise_keys",
    tables,
    Column("hash", String(64), primary_key=True),
    Column("tenant", ForeignKey(tenants.c.id), nullable=False, index=True),
    Column("made", String(32), nullable=False),
    Column("revoked", String(32)),
)
history = Table(
    "rankwise_history",
    tables,
    Column("id", Integer, primary_key=True),
    Column("tenant", ForeignKey(tenants.c.id), nullable=False, index=True),
    Column("at", String(32), nullable=False),
    Column("action", String(16), nullable=False),
    Column("version", Integer),
    Column("before", Integer),
    Column("note", Text, nullable=False),
)
usage = Table(
    "rankwise_usage",
    tables,
    Column("tenant", ForeignKey(tenants.c.id), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("prompt", BigInteger, nullable=False),
    Column("answer", BigInteger, nullable=False),
)


def default_url() -> str:
    """$RANKWISE_REGISTRY, else registry.sqlite where data are kept."""
    return os.environ.get("RANKWISE_REGISTRY") or str(data_folder() / "registry.sqlite")


def is_there(where: str) -> bool:
    """Whether opening it would make no new file; of a server's URL it is not asked."""
    url = _url(where)
    return url.get_backend_name() != "sqlite" or Path(url.database or "").exists()


class Database:
    """One registry, reached.

    Args:
        where: a path of a SQLite file, `sqlite:///…`, or `postgresql://user@host/name`. A password is better left to
            the environment (RANKWISE_REGISTRY, PGPASSWORD) than written into a command, where other users see it.

    Raises:
        RegistryError: cannot be reached, is no registry, or was written by a newer Rankwise.
    """

    def __init__(self, where: str):
        self.url = _url(where)
        self.shown = self.url.render_as_string(hide_password=True)
        with self._reached():
            self.engine = _engine(self.url)
            with _one_creator(self.url), self.engine.execution_options(writes=True).begin() as connection:
                _create(connection, self.shown)

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One state of the registry, whoever writes meanwhile."""
        with self._reached(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction of its own, not told to servers by the revision."""
        with self._reached(), self.engine.execution_options(writes=True).begin() as connection:
            yield connection

    @contextmanager
    def change(self) -> Iterator[Connection]:
        """One change after the other, over all processes. All of it is kept, or nothing."""
        with self.write() as connection:
            connection.execute(update(state).values(revision=state.c.revision + 1))  # takes the lock
            yield connection

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except ModuleNotFoundError as error:
            raise RegistryError(
                f"the registry {self.shown} needs the package {error.name}", fix="pip install 'rankwise[postgres]'"
            ) from None
        except SQLAlchemyError as error:
            said = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
            raise RegistryError(
                f"the registry {self.shown} cannot be used: {said}",
                expected="a SQLite file that this user may write, or a PostgreSQL database that answers",
                fix="look at --registry or $RANKWISE_REGISTRY",
            ) from error


def _url(where: str) -> URL:
    if "://" not in where:
        return URL.create("sqlite", database=str(Path(where).expanduser().absolute()))
    try:
        url = make_url(where)
        backend = url.get_backend_name()
    except (ArgumentError, NoSuchModuleError):
        backend = ""
    if backend not in ("sqlite", "postgresql"):
        raise RegistryError(
            "the registry's URL is not understood", expected="a file, sqlite:///FILE or postgresql://USER@HOST/DATABASE"
        )
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise RegistryError("a registry in memory would be gone with this command", expected="sqlite:///FILE")
    return url.set(drivername="sqlite" if backend == "sqlite" else "postgresql+psycopg")


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        waits = {"connect_timeout": 10, "options": f"-c lock_timeout={WAIT_SECONDS}s"}
        return create_engine(url, pool_pre_ping=True, connect_args=waits)
    engine = create_engine(url, connect_args={"timeout": WAIT_SECONDS})
    event.listen(engine, "connect", _open_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _open_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver would begin late, and never immediately: _begin_sqlite does
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=FULL")  # a promotion that was answered outlives a power cut


def _begin_sqlite(connection: Connection) -> None:
    """A reader that turns writer would fail where another wrote meanwhile; a writer takes the lock at once and waits
    for it."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _one_creator(url: URL) -> Iterator[None]:
    """Two processes that make one file at once get in each other's way when they turn to WAL, where SQLite does not
    wait."""
    if url.get_backend_name() != "sqlite":
        yield
        return
    path = Path(str(url.database))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _to_wal(path)
            yield
    except OSError as error:
        raise RegistryError(
            f"the registry {path} cannot be made: {error.strerror or error}", fix="name another with --registry"
        ) from None


def _to_wal(path: Path) -> None:
    """Readers then go on while one writes. The file keeps hashes of keys: its owner's alone."""
    import sqlite3

    path.touch(mode=0o600, exist_ok=True)
    connection = sqlite3.connect(path, timeout=WAIT_SECONDS)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.DatabaseError as error:
        raise RegistryError(f"{path} is not a registry: {error}", expected="a SQLite file, or none yet") from None
    finally:
        connection.close()


def _create(connection: Connection, shown: str) -> None:
    """Tables where there are none; else the schema must be ours."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": CREATION_LOCK})
    if not inspect(connection).has_table(state.name):
        tables.create_all(connection)
        connection.execute(state.insert().values(only=1, schema=SCHEMA, revision=0))
    found = connection.execute(select(state.c.schema)).scalar_one()
    if found != SCHEMA:
        raise RegistryError(
            f"the registry {shown} has schema {found}, and this rankwise reads {SCHEMA}", fix="upgrade rankwise"
        )
