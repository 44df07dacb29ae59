"""Rows of the registry's tables, read and written inside a transaction; records come out."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from rankwise.errors import AnswerIsNo, RegistryError, UnknownTenant
from rankwise.records import Action, AdapterVersion, Change, Limits, Tenant
from rankwise.serve.database import history, keys, tenants, versions
from rankwise.store import now


def tenant_row(connection: Connection, name: str, removed: bool = False) -> Row[Any]:
    row = connection.execute(select(tenants).where(tenants.c.name == name)).one_or_none()
    if row is None or (row.removed and not removed):
        raise UnknownTenant(
            f"no tenant is named {name}" if row is None else f"the tenant {name} was removed {row.removed}",
            fix=f"`rankwise tenants list` names them, `rankwise tenants add {name} RUN` adds it",
        )
    return row


def row_or_new(connection: Connection, name: str) -> Row[Any]:
    there = connection.execute(select(tenants.c.id).where(tenants.c.name == name)).scalar()
    if there is None:
        empty = Limits().model_dump_json()
        connection.execute(tenants.insert().values(name=name, limits=empty, requirements="[]"))
    return tenant_row(connection, name, removed=True)


def set_columns(connection: Connection, row: Row[Any], **values: object) -> None:
    connection.execute(update(tenants).where(tenants.c.id == row.id).values(**values))


def note(connection: Connection, row: Row[Any], action: Action, version: int | None, before: int | None) -> None:
    connection.execute(
        history.insert().values(tenant=row.id, at=now(), action=action, version=version, before=before, note="")
    )


def as_tenant(connection: Connection, row: Row[Any]) -> Tenant:
    records = connection.execute(
        select(versions.c.record).where(versions.c.tenant == row.id).order_by(versions.c.version)
    ).scalars()
    valid = select(func.count()).select_from(keys).where(keys.c.tenant == row.id, keys.c.revoked.is_(None))
    return Tenant(
        name=row.name,
        active=row.active,
        versions=tuple(AdapterVersion.model_validate_json(record) for record in records),
        limits=Limits.model_validate_json(row.limits),
        keys=connection.execute(valid).scalar_one(),
    )


def version_of(connection: Connection, row: Row[Any], version: int | None) -> AdapterVersion:
    there = as_tenant(connection, row).versions
    chosen = [v for v in there if version is None or v.version == version]
    if not chosen:
        raise RegistryError(
            f"{row.name} has no version {version}", expected=f"one of {', '.join(str(v.version) for v in there)}"
        )
    return chosen[-1]


def require_gate(version: AdapterVersion) -> None:
    missed = [gate for gate in version.gates if not gate.met]
    if version.gates and not missed:
        return
    said = "; ".join(
        f"{g.name} is {'not measured' if g.value is None else f'{g.value:g} ({g.unit})'}, required is {g.requirement}"
        for g in missed
    )
    raise AnswerIsNo(
        f"{version.name} has not passed its gate: {said or 'nothing was required of it'}",
        fix="train or evaluate again, then `rankwise tenants add` the run as a new version; what answers now goes on",
    )


def changes_of(connection: Connection, row: Row[Any]) -> list[Change]:
    rows = connection.execute(select(history).where(history.c.tenant == row.id).order_by(history.c.id))
    return [
        Change(at=r.at, tenant=row.name, action=r.action, version=r.version, before=r.before, note=r.note) for r in rows
    ]


def answered(changes: Sequence[Change]) -> list[int]:
    """Versions that a roll-back may go to, the active one last."""
    stack: list[int] = []
    for change in changes:
        if change.action == "promoted" and change.version is not None:
            stack.append(change.version)
        elif change.action == "rolled back":
            stack.pop()
        elif change.action == "removed":
            stack.clear()
    return stack
