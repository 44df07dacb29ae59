"""Sentences about tenants: what answers, what it may use, why a version may not answer, what happened."""

from rankwise.records import AdapterVersion, Change, Gate, Limits, Tenant
from rankwise.report.evaluation_words import gate_line
from rankwise.report.run_live import short_model

__all__ = ["TERMS", "answers", "change_line", "gate_sentence", "limits", "may_answer", "refusal", "short_model"]

TERMS = (
    ("Tenant", "Somebody who is served by a model of their own: a version of an adapter on a base that all share."),
    ("Version", "One trained adapter of a tenant, never changed after it was taken in."),
    ("Gate", "What a version's evaluation has to show before the version may answer."),
    ("Promote", "Let a version answer from now on; a running server follows within a second."),
    ("Roll back", "Let the version answer again that did before; once more: the one before that."),
    ("Base", "The model whose weights all tenants of a server share."),
    ("Rank", "The width of LoRA's two thin matrices: more can be learned, and more has to be stored."),
)


def answers(tenant: Tenant) -> str:
    """version 2 answers."""
    return f"version {tenant.active} answers" if tenant.active else "no version answers"


def limits(found: Limits) -> str:
    """at most 60 requests per minute."""
    said = [f"{value:,} {name.replace('_', ' ')}" for name, value in found.model_dump().items() if value]
    return "at most " + ", ".join(said) if said else "no limits of its own"


def may_answer(version: AdapterVersion) -> bool:
    """Are its gates met? One of which nothing was required may not."""
    return bool(version.gates) and all(gate.met for gate in version.gates)


def refusal(version: AdapterVersion) -> str:
    """Why it may not be promoted; empty where it may."""
    if may_answer(version):
        return ""
    if not version.gates:
        return "It cannot be promoted: nothing was required of it, so that nothing was shown."
    missed = [gate.name for gate in version.gates if not gate.met]
    return f"It cannot be promoted: {', '.join(missed)} {'is' if len(missed) == 1 else 'are'} not met."


def gate_sentence(gate: Gate) -> str:
    """`facts>=0.6`: facts is 3 %, 57 points too low; whether it is met stands beside it."""
    return gate_line(gate).partition(": ")[2]


def change_line(change: Change) -> str:
    """promoted version 2, in the place of version 1."""
    of = f" version {change.version}" if change.version else ""
    moved = change.action in ("promoted", "rolled back") and change.before not in (None, change.version)
    to = " to" if change.action == "rolled back" else ""
    return f"{change.action}{to}{of}" + (f", in the place of version {change.before}" if moved else "")
