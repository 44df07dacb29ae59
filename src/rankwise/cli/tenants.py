"""`rankwise tenants …`: who is served by which version, who may ask, how much. A running server follows by itself."""

import sys
from typing import Annotated, Any

import typer
from rich.markup import escape

from rankwise.cli.completing import tenant_names
from rankwise.cli.face import Json, RunFolder, command
from rankwise.cli.printing import notes, print_json, print_lines, print_passage, print_table
from rankwise.errors import UsageError

tenants = typer.Typer(
    help="Who is served by which version of an adapter; a running server follows within a second.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The tenant's name.", autocompletion=tenant_names)]
Where = Annotated[
    str | None,
    typer.Option(
        "--registry",
        metavar="FILE|URL",
        help="A SQLite file or postgresql://USER@HOST/DATABASE (default $RANKWISE_REGISTRY, else a file of this user).",
    ),
]


@tenants.command()
@command
def add(
    *,
    name: Name,
    run: RunFolder,
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="What its evaluation has to show before it may be promoted, such as 'facts>=0.6'; kept for the "
            "tenant's later versions. Without any: proven, evaluated, and forgetting did not end red.",
        ),
    ] = None,
    registry: Where = None,
    adapters: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|URL",
            help="Where adapter files are kept, such as s3://bucket/adapters (default $RANKWISE_ADAPTERS, else a "
            "folder of this user).",
        ),
    ] = None,
    max_mb: Annotated[int, typer.Option(min=1, help="Largest adapter that is taken in, in MB.")] = 2000,
    max_rank: Annotated[int, typer.Option(min=1, help="Largest rank that is taken in.")] = 512,
    as_json: Json = False,
) -> int:
    """A proven run as the tenant's newest version. Example: `rankwise tenants add clinic RUN --require 'facts>=0.6'`"""
    from rankwise import api

    known = _registry(registry)
    files = api.adapter_store(adapters, max_bytes=max_mb * 1_000_000, max_rank=max_rank)
    added = api.add_tenant(name, api.open_run(run), known, files, require)
    if others := api.other_bases(added, known):
        notes.print(
            f"{escape(added.name)} has another base than {escape(', '.join(others))}: one server carries one base, and "
            "this version needs a server of its own"
        )
    if as_json:
        print_json(added.model_dump(mode="json"))
        return 0
    print_lines(f"{added.name} is taken in: {added.method}, {added.bytes / 1e6:,.1f} MB. It answers nobody yet.")
    _print_gates(added)
    if all(gate.met for gate in added.gates):
        print_lines(f"`rankwise tenants promote {name}` lets it answer.")
    return 0


@tenants.command(name="list")
@command
def list_(*, registry: Where = None, as_json: Json = False) -> int:
    """All tenants. Example: `rankwise tenants list`"""
    found = _registry(registry).tenants()
    if as_json:
        print_json([tenant.model_dump(mode="json") for tenant in found])
    elif not found:
        print_lines("No tenants yet. `rankwise tenants add NAME RUN` makes one.")
    else:
        heads = ("tenant", "answers", "versions", "newest", "gate", "keys")
        print_table(heads, [_line(tenant) for tenant in found])
    return 0


def _line(tenant: Any) -> tuple[str, ...]:
    newest = tenant.versions[-1]
    active = f"version {tenant.active}" if tenant.active else "nothing"
    gate = "passed" if all(g.met for g in newest.gates) else "missed"
    return tenant.name, active, str(len(tenant.versions)), newest.added[:16], gate, str(tenant.keys)


@tenants.command()
@command
def show(*, name: Name, registry: Where = None, as_json: Json = False) -> int:
    """Versions, gates, limits and history of a tenant. Example: `rankwise tenants show clinic --json`"""
    from rankwise import api

    known = _registry(registry)
    if as_json:
        print_json(api.show_tenant(name, known))
        return 0
    tenant = known.tenant(name)
    print_lines(f"{name}: {_answers(tenant.active)}, {tenant.keys} valid keys, {_limits(tenant.limits)}", "")
    for version in tenant.versions:
        rank = f", rank {version.rank}" if version.rank else ""
        print_lines(f"{version.name}: {version.method}{rank}, {version.bytes / 1e6:,.1f} MB, base {version.base}")
        _print_gates(version)
    print_lines("")
    print_passage(
        "History", [f"{c.at[:19]} {c.action}{f' version {c.version}' * bool(c.version)}" for c in known.history(name)]
    )
    return 0


@tenants.command()
@command
def promote(
    *,
    name: Name,
    version: Annotated[int | None, typer.Option(min=1, help="Which one; the newest if not given.")] = None,
    registry: Where = None,
    as_json: Json = False,
) -> int:
    """Let a version answer; exit code 3 if its gate was missed. Example: `rankwise tenants promote clinic`"""
    return _told(_registry(registry).promote(name, version), as_json)


@tenants.command()
@command
def rollback(*, name: Name, registry: Where = None, as_json: Json = False) -> int:
    """Back to the version that answered before; again: further back. Example: `rankwise tenants rollback clinic`"""
    return _told(_registry(registry).roll_back(name), as_json)


@tenants.command()
@command
def remove(*, name: Name, registry: Where = None, as_json: Json = False) -> int:
    """End a tenant's service and all its keys; its history stays. Example: `rankwise tenants remove clinic`"""
    _registry(registry).remove(name)
    if as_json:
        print_json({"name": name, "removed": True})
    else:
        print_lines(f"{name} is removed: no version answers and no key is valid. Adding a version brings it back.")
    return 0


@tenants.command()
@command
def key(
    *,
    name: Name,
    revoke: Annotated[bool, typer.Option("--revoke", help="End all keys of the tenant.")] = False,
    revoke_one: Annotated[
        bool, typer.Option("--revoke-one", help="End one key, read from standard input: it has no place in a command.")
    ] = False,
    registry: Where = None,
    as_json: Json = False,
) -> int:
    """Make an API key, shown this once. Example: `rankwise tenants key clinic`"""
    known = _registry(registry)
    if revoke and revoke_one:
        raise UsageError("--revoke ends all keys, --revoke-one a single one", expected="one of the two")
    if revoke or revoke_one:
        return _revoke(name, known, revoke, as_json)
    secret = known.new_key(name)
    if as_json:
        print_json({"name": name, "key": secret})
    else:
        print_lines(secret)
        notes.print("keep it now: its hash alone is stored, and it is not shown again")
    return 0


def _revoke(name: str, known: Any, every: bool, as_json: bool) -> int:
    if every:
        ended = known.revoke_keys(name)
    else:
        secret = typer.prompt("key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
        if known.tenant_of_key(secret) != name:
            raise UsageError(f"that is no valid key of {name}")
        ended = int(known.revoke_key(secret))
    if as_json:
        print_json({"name": name, "revoked": ended})
    else:
        print_lines(f"{ended} {'key' if ended == 1 else 'keys'} of {name} ended")
    return 0


@tenants.command()
@command
def limits(
    *,
    name: Name,
    requests_per_minute: Annotated[int | None, typer.Option(min=0, help="0: no limit.")] = None,
    tokens_per_day: Annotated[
        int | None, typer.Option(min=0, help="Prompt and answer tokens of one UTC day. 0: no limit.")
    ] = None,
    concurrent_requests: Annotated[int | None, typer.Option(min=0, help="0: no limit.")] = None,
    registry: Where = None,
    as_json: Json = False,
) -> int:
    """What a tenant may use; the rest stays. Example: `rankwise tenants limits clinic --requests-per-minute 60`"""
    from rankwise import api

    now = api.limit_tenant(
        name,
        _registry(registry),
        requests_per_minute=requests_per_minute,
        tokens_per_day=tokens_per_day,
        concurrent_requests=concurrent_requests,
    )
    if as_json:
        print_json({"name": name, **now.model_dump(mode="json")})
    else:
        print_lines(f"{name}: {_limits(now)}")
    return 0


def _registry(url: str | None) -> Any:
    from rankwise import api

    return api.registry(without_password(url))


def without_password(url: str | None) -> str | None:
    """The same; UsageError where it would show a password to everybody."""
    if url and "://" in url and ":" in url.partition("://")[2].rpartition("@")[0]:
        raise UsageError(
            "--registry holds a password, which every user of this machine could read from the list of processes",
            fix="set RANKWISE_REGISTRY to the whole URL, or leave the password to PGPASSWORD or ~/.pgpass",
        )
    return url


def _told(tenant: Any, as_json: bool) -> int:
    if as_json:
        print_json(tenant.model_dump(mode="json"))
    else:
        print_lines(f"{tenant.name}: {_answers(tenant.active)}")
    return 0


def _answers(active: int | None) -> str:
    return f"version {active} answers" if active else "no version answers"


def _limits(limits: Any) -> str:
    said = [f"{value:,} {name.replace('_', ' ')}" for name, value in limits.model_dump().items() if value]
    return "at most " + ", ".join(said) if said else "no limits of its own"


def _print_gates(version: Any) -> None:
    from rankwise.report import words

    for gate in version.gates:
        print_lines(f"  - {words.gate_line(gate)}")
