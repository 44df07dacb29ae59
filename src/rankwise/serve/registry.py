"""The registry of tenants: who is served by which version, who may ask, how much, and what happened.

Gateways are stateless: they read this, and poll `revision`, which grows with every change but those of `add_tokens`.
Several processes on several machines may read and change it at once.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, date, datetime

from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from rankwise.errors import AnswerIsNo, RegistryError
from rankwise.records import AdapterVersion, Change, Gate, Limits, Tenant
from rankwise.serve.database import Database, default_url, keys, state, tenants, usage, versions
from rankwise.serve.rows import (
    answered,
    as_tenant,
    changes_of,
    note,
    require_gate,
    row_or_new,
    set_columns,
    tenant_row,
    version_of,
)
from rankwise.store import now

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SECRET = re.compile(r"rk-(\d{1,9})-[0-9a-f]{64}")


class Registry:
    """One registry, opened. Methods are short transactions, for any thread.

    Args:
        url: a SQLite file or a URL; None: $RANKWISE_REGISTRY, else a file in the user's data folder.

    Raises (every method):
        RegistryError: it cannot be reached.
        UnknownTenant: no tenant of that name, or a removed one.
    """

    def __init__(self, url: str | None = None):
        self._database = Database(url or default_url())
        self.shown = self._database.shown

    def close(self) -> None:
        self._database.close()

    # What servers ask

    def revision(self) -> int:
        """Grows with every change of tenants, versions, keys and limits. One row is read."""
        with self._database.read() as connection:
            return int(connection.execute(select(state.c.revision)).scalar_one())

    def tenants(self) -> list[Tenant]:
        """All that are not removed, by name, as of one moment."""
        with self._database.read() as connection:
            rows = connection.execute(select(tenants).where(tenants.c.removed.is_(None)).order_by(tenants.c.name))
            return [as_tenant(connection, row) for row in rows.all()]

    def tenant(self, name: str) -> Tenant:
        with self._database.read() as connection:
            return as_tenant(connection, tenant_row(connection, name))

    def limits(self, tenant: str) -> Limits:
        with self._database.read() as connection:
            return Limits.model_validate_json(tenant_row(connection, tenant).limits)

    def history(self, tenant: str) -> list[Change]:
        """Oldest first; of removed tenants as well."""
        with self._database.read() as connection:
            found = tenant_row(connection, tenant, removed=True)
            return changes_of(connection, found)

    # Versions

    def add_version(
        self,
        tenant: str,
        *,
        method: str,
        rank: int | None,
        bytes: int,
        sha256: str,
        base: str,
        base_hash: str,
        template_hash: str | None,
        artifact_hash: str,
        gates: Sequence[Gate],
        requirements: Sequence[str] | None = None,
    ) -> AdapterVersion:
        """Take in a version; the tenant is made with its first, and comes back where it was removed. It answers nobody
        until it is promoted.

        Args:
            requirements: kept for the tenant's later versions; None: as they are.

        Raises:
            RegistryError: a name that cannot be a tenant's.
        """
        _check_name(tenant)
        with self._database.change() as connection:
            row = row_or_new(connection, tenant)
            last = select(func.max(versions.c.version)).where(versions.c.tenant == row.id)
            added = AdapterVersion(
                tenant=tenant,
                version=(connection.execute(last).scalar() or 0) + 1,
                method=method,
                rank=rank,
                bytes=bytes,
                sha256=sha256,
                base=base,
                base_hash=base_hash,
                template_hash=template_hash,
                artifact_hash=artifact_hash,
                gates=tuple(gates),
                added=now(),
            )
            connection.execute(
                versions.insert().values(tenant=row.id, version=added.version, record=added.model_dump_json())
            )
            if requirements is not None:
                set_columns(connection, row, requirements=json.dumps(list(requirements)))
            note(connection, row, "restored" if row.removed else "added", added.version, row.active)
            set_columns(connection, row, removed=None)
            return added

    def promote(self, tenant: str, version: int | None = None) -> Tenant:
        """Let a version answer from now on; the newest where none is named. Nothing happens where it does already.

        Raises:
            RegistryError: no such version.
            AnswerIsNo: its gate was not passed.
        """
        with self._database.change() as connection:
            row = tenant_row(connection, tenant)
            chosen = version_of(connection, row, version)
            require_gate(chosen)
            if row.active != chosen.version:
                set_columns(connection, row, active=chosen.version)
                note(connection, row, "promoted", chosen.version, row.active)
            return as_tenant(connection, tenant_row(connection, tenant))

    def roll_back(self, tenant: str) -> Tenant:
        """Let the version answer that did before the active one was promoted; again: the one before that.

        Raises:
            AnswerIsNo: nothing was active before.
        """
        with self._database.change() as connection:
            row = tenant_row(connection, tenant)
            stack = answered(changes_of(connection, row))
            if len(stack) < 2:
                raise AnswerIsNo(
                    f"no version of {tenant} answered before "
                    + (f"version {row.active}" if row.active else "(none was promoted)"),
                    fix=f"`rankwise tenants promote {tenant} --version N` chooses one, "
                    f"`rankwise tenants remove {tenant}` ends its service",
                )
            set_columns(connection, row, active=stack[-2])
            note(connection, row, "rolled back", stack[-2], row.active)
            return as_tenant(connection, tenant_row(connection, tenant))

    def remove(self, tenant: str) -> None:
        """End its service: no version answers and no key is valid. Versions, history and usage stay; a version added
        later brings the tenant back, with new keys."""
        with self._database.change() as connection:
            row = tenant_row(connection, tenant)
            set_columns(connection, row, active=None, removed=now())
            connection.execute(
                update(keys).where(keys.c.tenant == row.id, keys.c.revoked.is_(None)).values(revoked=now())
            )
            note(connection, row, "removed", None, row.active)

    # Requirements and limits

    def requirements(self, tenant: str) -> list[str]:
        """What the owner requires of an evaluation; empty: the default gate. Of a name that is not there: empty."""
        with self._database.read() as connection:
            row = connection.execute(select(tenants.c.requirements).where(tenants.c.name == tenant)).one_or_none()
            return [] if row is None else list(json.loads(row.requirements))

    def set_limits(self, tenant: str, limits: Limits) -> None:
        with self._database.change() as connection:
            set_columns(connection, tenant_row(connection, tenant), limits=limits.model_dump_json())

    # Keys

    def new_key(self, tenant: str) -> str:
        """A new API key, told this once: `rk-<number of the tenant>-<32 random bytes in hex>`; others stay valid.

        Only its sha256 is kept. A slow hash guards secrets that people choose; 256 random bits cannot be guessed, and
        a fast one may be taken with every request.
        """
        with self._database.change() as connection:
            row = tenant_row(connection, tenant)
            secret = f"rk-{row.id}-{secrets.token_hex(32)}"
            connection.execute(keys.insert().values(hash=_hash(secret), tenant=row.id, made=now()))
            return secret

    def revoke_key(self, secret: str) -> bool:
        """End one key. False where it was not valid."""
        with self._database.change() as connection:
            valid = (keys.c.hash == _hash(secret), keys.c.revoked.is_(None))
            return connection.execute(update(keys).where(*valid).values(revoked=now())).rowcount == 1

    def revoke_keys(self, tenant: str) -> int:
        """End all keys of a tenant; returns how many were valid."""
        with self._database.change() as connection:
            row = tenant_row(connection, tenant)
            valid = (keys.c.tenant == row.id, keys.c.revoked.is_(None))
            return connection.execute(update(keys).where(*valid).values(revoked=now())).rowcount

    def tenant_of_key(self, secret: str) -> str | None:
        """Whose key it is; None: nobody's, or revoked. Hashes are compared in constant time."""
        form = _SECRET.fullmatch(secret)
        if form is None:
            return None
        given, found = _hash(secret), None
        with self._database.read() as connection:
            asked = select(keys.c.hash, tenants.c.name).join(tenants, tenants.c.id == keys.c.tenant)
            rows = connection.execute(asked.where(keys.c.tenant == int(form[1]), keys.c.revoked.is_(None))).all()
        for row in rows:
            if hmac.compare_digest(row.hash, given):
                found = str(row.name)
        return found

    # Usage

    def add_tokens(self, tenant: str, day: date, prompt: int, answer: int) -> int:
        """Count tokens of one UTC day, atomically over all gateways; returns the day's sum so far."""
        with self._database.write() as connection:
            row = tenant_row(connection, tenant, removed=True)  # an answer may end after its tenant was removed
            insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(usage)
            counted = insert.values(tenant=row.id, day=day.isoformat(), prompt=prompt, answer=answer)
            both = counted.on_conflict_do_update(
                index_elements=[usage.c.tenant, usage.c.day],
                set_={
                    "prompt": usage.c.prompt + counted.excluded.prompt,
                    "answer": usage.c.answer + counted.excluded.answer,
                },
            ).returning(usage.c.prompt + usage.c.answer)
            return int(connection.execute(both).scalar_one())

    def tokens_today(self, tenant: str) -> int:
        """Prompt and answer tokens of this UTC day, over all gateways."""
        today = datetime.now(UTC).date().isoformat()
        with self._database.read() as connection:
            asked = select(usage.c.prompt + usage.c.answer).join(tenants, tenants.c.id == usage.c.tenant)
            return int(connection.execute(asked.where(tenants.c.name == tenant, usage.c.day == today)).scalar() or 0)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise RegistryError(
            f"{name!r} cannot be the name of a tenant",
            expected="1 to 63 of a-z 0-9 . _ -, a letter or digit first, as in `clinic`",
        )
