"""What the registry says, as one gateway knows it now: whose a key is, and which version a model's name means.

Looked at every half second and never while a request waits. Where the registry cannot be reached, what was known last
goes on.
"""

import asyncio
import hashlib
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankwise.errors import RankwiseError
from rankwise.records import AdapterVersion, Tenant
from rankwise.serve.gateway.errors import Refusal, bad, no_such_model, unavailable
from rankwise.serve.gateway.limits import Usage, today
from rankwise.serve.gateway.logs import log
from rankwise.serve.gateway.metrics import Metrics
from rankwise.serve.registry import Registry
from rankwise.text.template import ChatText

BASE = "base"
KEYS = 4096  # keys that are remembered between two changes of the registry, valid or not
REFUSED_SECONDS = 60.0  # after which a version that was refused is tried again
_PINNED = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Base:
    """The model that the engine carries.

    Attributes:
        hash: sha256 of its weights, as the lineage of an adapter has it.
    """

    name: str
    folder: Path
    hash: str
    chat: ChatText


class Directory:
    def __init__(self, registry: Registry, base: Base, *, allow_base: bool, metrics: Metrics):
        self._registry, self.base, self._allow_base, self._metrics = registry, base, allow_base, metrics
        self._tenants: Mapping[str, Tenant] = {}
        self._keys: OrderedDict[bytes, str | None] = OrderedDict()
        self._revision: int | None = None
        self._good: dict[str, int] = {}
        self._refused: dict[str, tuple[str, float]] = {}

    async def look(self) -> bool:
        """Take in what changed; True where something did. Raises RegistryError."""
        revision = await asyncio.to_thread(self._registry.revision)
        if revision == self._revision:
            return False
        found = {tenant.name: tenant for tenant in await asyncio.to_thread(self._registry.tenants)}
        for tenant in found.values():
            self._check_bases(tenant)
        self._tenants, self._revision = found, revision
        self._keys.clear()
        return True

    def _check_bases(self, tenant: Tenant) -> None:
        for version in tenant.versions:
            if version.base_hash != self.base.hash and version.name not in self._refused:
                self._refuse(version.name, "it was trained on another base than this server's", "base", for_ever=True)

    async def tenant_of(self, secret: str) -> Tenant | None:
        """Whose key it is; None: nobody's."""
        known = hashlib.sha256(secret.encode()).digest()
        if known not in self._keys:
            revision = self._revision
            try:
                name = await asyncio.to_thread(self._registry.tenant_of_key, secret)
            except RankwiseError:
                raise unavailable("Keys cannot be checked at the moment.", 2, "registry_unavailable") from None
            if revision != self._revision:
                return None if name is None else self._tenants.get(name)
            self._keys[known] = name
            if len(self._keys) > KEYS:
                self._keys.popitem(last=False)
        name = self._keys[known]
        return None if name is None else self._tenants.get(name)

    def tenants(self) -> Sequence[Tenant]:
        return list(self._tenants.values())

    def is_known(self, adapter: str) -> bool:
        """Is it a version of a tenant that is served?"""
        name, _, number = adapter.rpartition("@")
        tenant = self._tenants.get(name)
        return tenant is not None and any(str(version.version) == number for version in tenant.versions)

    def models(self, tenant: Tenant) -> list[tuple[str, str]]:
        """(name, since when it is there) of what a tenant's key can ask."""
        allowed = [version for version in tenant.versions if _is_let_in(version)]
        active = [(tenant.name, version.added) for version in allowed if version.version == tenant.active]
        base = [(BASE, tenant.versions[0].added)] if self._allow_base and tenant.versions else []
        return [*active, *((version.name, version.added) for version in allowed), *base]

    def choose(self, tenant: Tenant, model: str) -> list[AdapterVersion]:
        """Versions that may answer, the one that should first; empty: the base. Nothing but the tenant's own is looked
        at, so another tenant's model cannot be told from none.

        Raises:
            Refusal: 404 not a model of this key; 503 none of its versions can be served.
        """
        name, at, number = model.partition("@")
        if name != tenant.name:
            if self._allow_base and model == BASE:
                return []
            raise no_such_model(model)
        if at:
            wanted = [int(number)] if _PINNED.fullmatch(number) else []
        else:
            wanted = list(dict.fromkeys(v for v in (tenant.active, self._good.get(name)) if v is not None))
            if tenant.active is None:
                raise bad(f"No version of {name!r} was promoted yet.", "model", "model_not_promoted")
        numbered = {version.version: version for version in tenant.versions if _is_let_in(version)}
        found = [numbered[number] for number in wanted if number in numbered]
        if not found:
            raise no_such_model(model)
        return self._served(found)

    def _served(self, versions: Sequence[AdapterVersion]) -> list[AdapterVersion]:
        now = time.monotonic()
        reasons = {v.name: self._refused[v.name] for v in versions if v.name in self._refused}
        served = [v for v in versions if v.name not in reasons or reasons[v.name][1] <= now]
        if not served:
            raise not_served(versions[0].name, reasons[versions[0].name][0])
        return served

    def refuse(self, name: str, why: str) -> None:
        """A version that the engine or its canary refused is not tried for a while."""
        self._refuse(name, why, "canary")

    def _refuse(self, name: str, why: str, reason: str, for_ever: bool = False) -> None:
        until = float("inf") if for_ever else time.monotonic() + REFUSED_SECONDS
        self._refused[name] = (why, until)
        self._metrics.refused.labels(reason).inc()
        log("version not served", logging.ERROR, adapter=name, reason=why)

    def good(self, version: AdapterVersion) -> None:
        """It answers, and goes on answering should its successor be refused."""
        tenant = self._tenants.get(version.tenant)
        if tenant is not None and tenant.active == version.version:
            self._good[version.tenant] = version.version


def not_served(name: str, why: str) -> Refusal:
    """503 for a version that cannot be served."""
    return unavailable(f"{name} is not served: {why}", 30, "version_not_served")


def _is_let_in(version: AdapterVersion) -> bool:
    return bool(version.gates) and all(gate.met for gate in version.gates)


class Poll:
    """Looks at the registry now and then, and tells it what was used."""

    def __init__(
        self, directory: Directory, registry: Registry, usage: Usage, metrics: Metrics, changed: Callable[[], object]
    ):
        """
        Args:
            changed: called after the directory took in a change.
        """
        self._directory, self._registry, self._usage, self._metrics = directory, registry, usage, metrics
        self._changed = changed

    async def run(self, seconds: float) -> None:
        """Until it is cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(seconds)

    async def once(self) -> None:
        """A registry that cannot be reached is told in the log and tried again."""
        try:
            if await self._directory.look():
                self._changed()
            await self.settle()
        except RankwiseError as fault:
            self._metrics.polls_failed.inc()
            log("registry not reached", logging.WARNING, reason=fault.what)

    async def settle(self) -> None:
        """Tell the registry which tokens were used, and ask it for the sums of tenants with a quota that came here."""
        for tenant, days in self._usage.untold().items():
            for day, (prompt, answer) in days.items():
                whole = await asyncio.to_thread(self._registry.add_tokens, tenant, day, prompt, answer)
                self._usage.tell(tenant, day, (prompt, answer), whole)
        for known in self._directory.tenants():
            if known.limits.tokens_per_day is not None and self._usage.has_asked(known.name):
                day = today()
                self._usage.known(known.name, day, await asyncio.to_thread(self._registry.tokens_today, known.name))
