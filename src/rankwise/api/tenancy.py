"""From a proven run to a tenant's version: the proof, the gate, the files, the registry."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rankwise.api.judging import requirements
from rankwise.errors import AnswerIsNo, RankwiseError
from rankwise.files import hash_folder
from rankwise.records import AdapterVersion, Artifact, Evidence, Gate, Limits, content_hash
from rankwise.store import Run

if TYPE_CHECKING:
    from rankwise.evaluate.gates import Requirement
    from rankwise.serve.adapterstore import AdapterStore
    from rankwise.serve.registry import Registry

LEVELS = {"green": 0, "amber": 1, "red": 2}


def registry(url: str | None = None) -> "Registry":
    """The registry of tenants; None: $RANKWISE_REGISTRY, else this user's. Raises RegistryError."""
    try:
        from rankwise.serve.registry import Registry
    except ModuleNotFoundError as error:
        raise RankwiseError(
            f"the registry of tenants needs the package {error.name}", fix="pip install 'rankwise[serve]'"
        ) from None
    return Registry(url)


def tenant_names(url: str | None = None) -> tuple[str, ...]:
    """Names in a registry (as `registry`), none where it does not exist yet. Raises RegistryError."""
    from rankwise.serve.database import default_url, is_there

    if not is_there(url or default_url()):
        return ()
    known = registry(url)
    try:
        return tuple(tenant.name for tenant in known.tenants())
    finally:
        known.close()


def adapter_store(root: str | None = None, max_bytes: int | None = None, max_rank: int | None = None) -> "AdapterStore":
    """Where adapter files are kept; None: $RANKWISE_ADAPTERS, else a folder of this user's. Raises AdapterError.

    Args:
        max_bytes, max_rank: of an adapter that is taken in; None: the store's own limits.
    """
    from rankwise.serve.adapterstore import MAX_RANK, MOST_BYTES, AdapterStore

    return AdapterStore(root, max_bytes=max_bytes or MOST_BYTES, max_rank=max_rank or MAX_RANK)


def add_tenant(
    name: str, run: Run, known: "Registry", files: "AdapterStore", require: Sequence[str] | None = None
) -> AdapterVersion:
    """A proven run as the newest version of a tenant. It answers nobody before it is promoted, for which its gates
    have to be met.

    Args:
        require: conditions as `rankwise eval --require` takes them, kept for the tenant's later versions; None: those
            kept, else the default gate.

    Raises:
        AnswerIsNo: no proof, files that are not those that were proven, or a model that is no adapter.
        UsageError: a condition that cannot be read.
        AdapterError: files that a server should not read.
        RegistryError: a name that cannot be a tenant's, or the registry cannot be reached.
    """
    decided, artifact = run.plan(), _proven(run)
    hashes = _unchanged(run, artifact)
    said = list(require) if require is not None else known.requirements(name)
    evidence = run.evidence() if run.evidence_path.is_file() else None
    gates = _gates(requirements(said, decided.job.eval.metrics), artifact, evidence)
    sha256 = files.put(run.adapter, decided.facts.model)
    taken_in = {file: sha for file, sha in hashes.items() if file.partition("/")[0] not in files.left_out}
    if sha256 != content_hash(taken_in):  # somebody wrote to them since they were hashed
        raise _changed(run)
    return known.add_version(
        name,
        method=artifact.method,
        rank=_rank(run.adapter),
        bytes=sum((run.adapter / file).stat().st_size for file in taken_in),
        sha256=sha256,
        base=artifact.base,
        base_hash=artifact.lineage.base_weights,
        template_hash=artifact.lineage.chat_template,
        artifact_hash=artifact.content_hash(),
        gates=gates,
        requirements=require,
    )


def other_bases(version: AdapterVersion, known: "Registry") -> list[str]:
    """Tenants whose newest version is of another base: one server does not carry both."""
    return [
        t.name for t in known.tenants() if t.name != version.tenant and t.versions[-1].base_hash != version.base_hash
    ]


def show_tenant(name: str, known: "Registry") -> dict[str, Any]:
    """What `rankwise tenants show --json` prints."""
    from rankwise.serve.rows import answered  # here: it needs the packages of a server

    history = known.history(name)
    stack = answered(history)
    return {
        **known.tenant(name).model_dump(mode="json"),
        "requirements": known.requirements(name),
        "tokens_today": known.tokens_today(name),
        "rolls_back_to": stack[-2] if len(stack) > 1 else None,
        "history": [change.model_dump(mode="json") for change in history],
    }


def limit_tenant(name: str, known: "Registry", **changes: int | None) -> Limits:
    """Limits of a tenant after these changes; None: as it was, 0: no limit."""
    asked = {key: value or None for key, value in changes.items() if value is not None}
    if asked:
        known.set_limits(name, Limits.model_validate({**known.limits(name).model_dump(), **asked}))
    return known.limits(name)


def _proven(run: Run) -> Artifact:
    artifact = run.artifact()
    if artifact is None:
        raise AnswerIsNo(
            f"{run.folder} has no artifact.json: nobody proved that its files do what was trained",
            fix=f"`rankwise verify {run.folder}`",
        )
    if not artifact.verification.passed:
        failed = ", ".join(c.name for c in artifact.verification.checks if not c.passed)
        raise AnswerIsNo(f"the proof of {run.folder} failed: {failed}", fix=f"`rankwise verify {run.folder}`")
    if artifact.adapter is None:
        raise AnswerIsNo(
            f"{run.folder} is a {artifact.method} model, no adapter: a copy of all weights shares no base with others",
            fix=f"serve {run.folder / (artifact.model or 'model')} as a base of its own, with a server of its own",
        )
    return artifact


def _unchanged(run: Run, artifact: Artifact) -> dict[str, str]:
    """File -> sha256 of the adapter, as they were proven and still are."""
    before = f"{artifact.adapter}/"
    proven = {name.removeprefix(before): sha for name, sha in artifact.files.items() if name.startswith(before)}
    if not proven or hash_folder(run.adapter) != proven:
        raise _changed(run)
    return proven


def _changed(run: Run) -> AnswerIsNo:
    return AnswerIsNo(
        f"the files of {run.adapter} are not those that were proven",
        expected="the hashes that artifact.json gives",
        fix=f"restore them, or prove them again with `rankwise verify {run.folder}`",
    )


def _rank(adapter: Path) -> int | None:
    """The largest rank of any module; None for methods without one."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    return max(ranks) if config.get("peft_type") == "LORA" else None


def _gates(required: "Sequence[Requirement]", artifact: Artifact, evidence: Evidence | None) -> list[Gate]:
    """What the owner requires, else the default: proof passed, evaluated, and forgetting did not end red."""
    from rankwise.evaluate.gates import gate

    evaluation = evidence.evaluation if evidence else None
    if required:
        return [gate(r, evaluation) for r in required]
    passed = sum(c.passed for c in artifact.verification.checks) / len(artifact.verification.checks)
    found = [
        _default("proof", ">=", 1, passed, "share of its checks"),
        _default("evaluation", ">=", 1, float(evaluation is not None), "evaluations of the run"),
    ]
    if evidence and evidence.forgetting:  # else nobody looked, and what did not happen did not end red
        level = LEVELS[evidence.forgetting.level]
        found.append(_default("forgetting", "<", LEVELS["red"], level, "level: 0 green, 1 amber, 2 red"))
    return found


def _default(name: str, comparison: Literal[">=", "<"], limit: float, value: float, unit: str) -> Gate:
    return Gate(
        requirement=f"{name}{comparison}{limit:g}",
        name=name,
        comparison=comparison,
        limit=limit,
        value=value,
        unit=unit,
        met=value >= limit if comparison == ">=" else value < limit,
    )
