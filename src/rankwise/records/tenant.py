"""Tenants: who is served by which version of which adapter, why it was let in, and what happened to it."""

from typing import Literal

from pydantic import Field

from rankwise.records.base import Record
from rankwise.records.evidence import Gate

Action = Literal["added", "promoted", "rolled back", "removed", "restored"]


class AdapterVersion(Record):
    """One version of a tenant's adapter, never changed after it was added."""

    tenant: str
    version: int = Field(description="Counted from 1 for each tenant.")
    method: str
    rank: int | None
    bytes: int = Field(description="Of its files.")
    sha256: str = Field(description="Of its files together; also the name of its folder in the adapter store.")
    base: str = Field(description="The base model as the job names it.")
    base_hash: str = Field(description="sha256 of the base's weights, from the lineage of the adapter.")
    template_hash: str | None = Field(description="sha256 of the chat template that it was trained with.")
    artifact_hash: str = Field(description="Content hash of the artifact.json that proved it.")
    gates: tuple[Gate, ...] = Field(description="What was required of its evaluation, and whether it was met.")
    added: str = Field(description="UTC, ISO 8601.")

    @property
    def name(self) -> str:
        """Unique over tenants and versions: `clinic@3`."""
        return f"{self.tenant}@{self.version}"


class Limits(Record):
    """What a tenant may use; None: as much as the server's own limits leave."""

    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_day: int | None = Field(None, ge=1, description="Prompt and answer tokens of one UTC day.")
    concurrent_requests: int | None = Field(None, ge=1)


class Tenant(Record):
    name: str
    active: int | None = Field(description="The version that answers; None: none was promoted yet.")
    versions: tuple[AdapterVersion, ...]
    limits: Limits = Limits()
    keys: int = Field(description="API keys that are valid now.")


class Change(Record):
    """One line of a tenant's history."""

    at: str = Field(description="UTC, ISO 8601.")
    tenant: str
    action: Action
    version: int | None
    before: int | None = Field(description="The version that answered before.")
    note: str = ""
