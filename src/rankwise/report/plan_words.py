"""Sentences about a plan below its verdict: rungs below training, reasons, losers, flip points, offers."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from rankwise.records import Flip, Plan, Reason, Rejection, Rung
from rankwise.report.glossary import method_name
from rankwise.report.quantities import plain, size
from rankwise.report.verdict_words import offer_sentence, warnings_left

NAMED = 1  # candidates of one rule, after the first, that are told with their number; the rest is named
OTHER_SIDE = " The other side: "


@dataclass(frozen=True)
class Passage:
    """A title and the sentences under it."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Citation:
    """A piece of evidence as a plan spells it out."""

    id: str
    text: str
    other_side: str


@dataclass(frozen=True)
class RejectedGroup:
    """Candidates that one rule excluded, in the order of the plan."""

    rule: str
    members: tuple[Rejection, ...]
    cited: tuple[str, ...]


def plan_lines(plan: Plan) -> list[Passage]:
    """What stands below the verdict and its table; passages without a line are left out."""
    warnings = warnings_left(plan)
    passages = (
        Passage("Below training", tuple(map(rung_line, plan.rungs))),
        Passage("Why", tuple(reason_line(r) for r in plan.reasons if r.step != "configuration")),
        Passage("Why these values", tuple(reason_line(r) for r in plan.reasons if r.step == "configuration")),
        Passage("Rejected", tuple(map(group_line, rejected_groups(plan.rejected)))),
        Passage("What would change the call", tuple(map(flip_line, plan.flips))),
        Passage("What could be rented", tuple(f"{offer_sentence(o)}. {_capital(o.why)}." for o in plan.offers)),
        Passage("Warnings" if warnings == plan.warnings else "Other warnings", warnings),
        Passage("Questions", plan.questions),
    )
    return [p for p in passages if p.lines]


def _capital(text: str) -> str:
    text = text.strip().removesuffix(".")
    return text[:1].upper() + text[1:]


def reason_line(reason: Reason) -> str:
    """The reason, the number that decided it and the ids of the evidence, which the page and plan.json spell out."""
    return sentence(reason.text, reason.number) + evidence_ids(reason.evidence)


def evidence_ids(evidence: Sequence[str]) -> str:
    """` Evidence: E4, E6.`; nothing where there is none."""
    ids = ", ".join(cited(e).id for e in evidence)
    return f" Evidence: {ids}." if ids else ""


def cited(evidence: str) -> Citation:
    """Evidence taken apart: its id, what it found, and the other side."""
    name, _, rest = evidence.partition(": ")
    text, _, other = rest.partition(OTHER_SIDE)
    return Citation(name, text.strip(), other.strip())


def all_evidence(plan: Plan) -> tuple[Citation, ...]:
    """Every piece that the plan cites, once, by letter and number."""
    told = [e for source in (plan.reasons, plan.rejected, plan.rungs) for cites in source for e in cites.evidence]
    once = {c.id: c for c in sorted(map(cited, told), key=lambda c: len(c.text))}
    return tuple(sorted(once.values(), key=lambda c: _by_number(c.id)))


def _by_number(name: str) -> tuple[str, int, str]:
    match = re.fullmatch(r"([A-Z]+)(\d+)", name)
    return (match[1], int(match[2]), "") if match else ("~", 0, name)


def rung_line(rung: Rung) -> str:
    """prompting (try it first): four examples close the gap (812 tokens). Evidence: E3."""
    first = " (try it first)" if rung.first else ""
    return f"{rung.name}{first}: {sentence(rung.text, rung.number)}{rung_load(rung)}{evidence_ids(rung.evidence)}"


def rung_load(rung: Rung) -> str:
    """What it costs at every request, where it is worth trying and its number does not say it already."""
    if not rung.first:
        return ""
    said = []
    if rung.tokens_per_request and plain(rung.tokens_per_request) not in (rung.number or "") + rung.text:
        said.append(f"{plain(rung.tokens_per_request)} prompt tokens more in each request")
    if rung.kv_cache_bytes:
        said.append(f"{size(rung.kv_cache_bytes)} of key-value cache a conversation")
    text = ", ".join(said)
    return f" {text[0].upper()}{text[1:]}." if text else ""


def rejected_groups(rejected: Iterable[Rejection]) -> tuple[RejectedGroup, ...]:
    """By rule, in the order in which the plan first names each."""
    order: dict[str, int] = {}
    listed = list(rejected)
    for rejection in listed:
        order.setdefault(rejection.rule, len(order))
    groups = groupby(sorted(listed, key=lambda r: order[r.rule]), key=lambda r: r.rule)
    found = [(rule, tuple(members)) for rule, members in groups]
    return tuple(
        RejectedGroup(rule, members, tuple(dict.fromkeys(cited(e).id for m in members for e in m.evidence)))
        for rule, members in found
    )


def group_line(group: RejectedGroup) -> str:
    """One rule and all that it excluded: the first in full, the next with their number, the rest by name."""
    first, others = group.members[0], group.members[1:]
    ids = f" Evidence: {', '.join(group.cited)}." if group.cited else ""
    return f"{group.rule}: {rejection_line(first)}{_likewise(first, others)}{ids}"


def _likewise(first: Rejection, others: Sequence[Rejection]) -> str:
    if not others:
        return ""
    told = [r.method if r.number in (None, first.number) else f"{r.method} ({r.number})" for r in others[:NAMED]]
    rest = [r.method for r in others[NAMED:]]
    return f" Likewise {', '.join([*told, *rest])}."


def rejection_line(rejection: Rejection) -> str:
    """What was rejected, why, and what would bring it back."""
    flip = f" This would not hold if {rejection.would_flip_if.rstrip('.')}." if rejection.would_flip_if else ""
    known = (rejection.method.casefold(), method_name(rejection.method).casefold())
    name = "" if rejection.text.casefold().startswith(known) else f"{rejection.method}: "
    return f"{name}{sentence(rejection.text, rejection.number)}{flip}"


def flip_line(flip: Flip) -> str:
    """If budget.usd were 900 instead of 500: full-8bit instead of lora."""
    return f"If {flip.if_.strip()}: {flip.then.strip().removesuffix('.')}."


def sentence(text: str, number: str | None) -> str:
    """A sentence that ends in a full stop and names its number."""
    sentence = text.strip().removesuffix(".")
    if number and number not in text:
        sentence += f" ({number})"
    return sentence if sentence.endswith(("!", "?")) else sentence + "."
