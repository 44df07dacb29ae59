"""What a notebook or a Python prompt shows of a record: sentences, tables and lists in the command line's words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.records import (
    Artifact,
    Audit,
    Diagnosis,
    Estimate,
    Evaluation,
    Evidence,
    Exported,
    Gate,
    Plan,
    Verification,
    Watching,
)
from rankwise.records.benchmark import Benchmarks
from rankwise.records.export import EngineFit
from rankwise.records.selfcheck import Environment, SelfCheck
from rankwise.records.tables import Tables
from rankwise.report import (
    audit_words,
    diagnosis_words,
    doctor_words,
    estimate_words,
    spectrum_words,
    tables_words,
    words,
)

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Table:
    """A table with its heading; a column without a head has an empty one."""

    title: str
    heads: Sequence[str]
    rows: Rows


@dataclass(frozen=True)
class Said:
    """What is shown: the verdict first, then what it stands on, then the rest.

    Attributes:
        lead: sentences; the first is the verdict.
        tables: shown below it.
        passages: (title, lines).
    """

    lead: Sequence[str]
    tables: Sequence[Table] = ()
    passages: Sequence[tuple[str, Sequence[str]]] = ()


def text_of(said: Said) -> str:
    """As lines for a terminal."""
    lines = [*said.lead]
    for table in said.tables:
        lines += ["", *([table.title] if table.title else []), *_columns(table)]
    for title, listed in said.passages:
        lines += ["", title, *(f"  - {line}" for line in listed)] if listed else []
    return "\n".join(lines)


def _columns(table: Table) -> list[str]:
    rows = [list(table.heads), *([str(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(table.heads))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [f"  {line}".rstrip() for line in lines]


def said_of(record: Any) -> Said:
    """Of any record that `KINDS` names."""
    return KINDS[type(record)](record)


def _plan(plan: Plan) -> Said:
    return Said(words.verdict_paragraph(plan), (), [(p.title, p.lines) for p in words.plan_lines(plan)])


def _estimate(found: Estimate) -> Said:
    fits = {True: "fits", False: "does not fit", None: "whether it fits is unknown"}[found.memory.fits]
    memory, time, money = found.memory, found.time, found.money
    numbers = [
        ("peak on the device", words.size(memory.peak_device), words.size_range(memory.interval), "memory"),
        ("training time", words.duration(time.train_seconds), _between(words.duration_range, time.interval), "time"),
        ("throughput", words.rate(time.tokens_per_second), "", "time"),
        ("one run", words.usd(money.train_usd), _between(words.usd_range, money.interval), "money"),
        ("one checkpoint", words.size(found.storage.checkpoint_bytes), "", "storage"),
    ]
    predicted = [(name, value, range_, found.sources.get(of, words.UNKNOWN)) for name, value, range_, of in numbers]
    parts = [(row.name, row.bytes, row.beside) for row in estimate_words.memory_rows(found)]
    return Said(
        [f"{found.model}, {words.method_name(found.method)}: {fits}.", *estimate_words.estimate_lines(found)],
        [
            Table("", ("predicted", "", "expected in", "source"), predicted),
            Table("Peak memory by part", ("part", "bytes", ""), parts),
        ],
        [("Notes", found.notes)],
    )


def _between(write: Callable[[Any], str], interval: Any) -> str:
    """70.1 to 75.0 GB; empty where there is no interval."""
    return "" if interval is None else write(interval)


def _audit(found: Audit) -> Said:
    return Said(
        [audit_words.verdict_sentence(found), *audit_words.counted_lines(found)],
        (),
        [("Findings", audit_words.finding_lines(found.findings)), ("Looked at", [audit_words.checked_line(found)])],
    )


def _diagnosis(found: Diagnosis) -> Said:
    table = Table("", diagnosis_words.heads(found), diagnosis_words.rows(found))
    passages = [(p.title, p.lines) for p in diagnosis_words.passages(found)]
    return Said([diagnosis_words.conclusion_sentence(found), diagnosis_words.basis_line(found)], [table], passages)


def _evaluation(found: Evaluation) -> Said:
    more = (words.kept_sentence(found), words.confident_sentence(found))
    passages = list(words.evaluation_passages(found))
    return Said([words.knows_or_sounds(found), *(s for s in more if s)], (), passages)


def _evidence(found: Evidence) -> Said:
    lead = [words.knows_or_sounds(found.evaluation)] if found.evaluation else []
    passages = [
        ("Predicted and actual", [words.actual_line(a) for a in found.actuals]),
        ("Findings", [words.finding_line(f) for f in found.findings]),
    ]
    return Said([*lead, *words.outcome_lines(found, None)[:-1]], (), passages)


def _verification(found: Verification) -> Said:
    return Said([words.proof_sentence(found)], (), [("Checks", [words.check_line(c) for c in found.checks])])


def _artifact(found: Artifact) -> Said:
    lead = f"{found.kind.capitalize()} of {found.base}, by {words.method_name(found.method)}: {len(found.files)} files."
    return Said([lead, words.proof_sentence(found.verification)])


def _watching(found: Watching) -> Said:
    kinds = Table("", spectrum_words.HEADS, spectrum_words.kind_rows(found.modules))
    lead = [*spectrum_words.watching_lines(found), *spectrum_words.spectrum_lines(found.spectrum, found.no_spectrum)]
    passages = [
        ("Findings", [words.finding_line(f) for f in found.findings]),
        ("Beside its base", [words.comparison_line(c) for c in found.comparisons]),
        ("Notes", found.notes),
    ]
    return Said(lead, [kinds] if found.modules else (), passages)


def _tables(found: Tables) -> Said:
    tables = [Table(title, heads, rows) for title, heads, rows, _ in tables_words.printed_tables(found)]
    claims = [line for claim in found.claims for line in tables_words.claim_lines(claim)]
    lead = [tables_words.verdict_counts(found.claims)] if found.claims else []
    assumed = [f"{name}: {text}" for name, text in found.assumptions.items()]
    return Said(lead, tables, [("Claims", claims), ("Assumptions", assumed)])


def _environment(found: Environment) -> Said:
    verdict = "A run would find all it needs here." if found.sound else "Something is wrong here."
    rows = [doctor_words.condition_row(c) for c in found.conditions]
    return Said([verdict], [Table("", doctor_words.CONDITION_HEADS, rows)])


def _self_check(found: SelfCheck) -> Said:
    steps = Table("Steps", doctor_words.STEP_HEADS, [doctor_words.step_row(r) for r in found.rows])
    rows = [doctor_words.condition_row(c) for c in found.conditions]
    return Said(
        [doctor_words.self_check_sentence(found)], [steps, Table("Conditions", doctor_words.CONDITION_HEADS, rows)]
    )


def _benchmarks(found: Benchmarks) -> Said:
    lines = [words.benchmark_line(row) for row in words.benchmark_rows(found)]
    failed = [words.failure_line(f) for f in found.failures]
    return Said([words.benchmark_source(found)], (), [("Tasks", lines), ("Not run", failed), ("Notes", found.notes)])


def _exported(found: Exported) -> Said:
    lead = f"Exported to {found.url or found.folder}: {len(found.files)} files, {words.size(found.bytes)}."
    return Said([lead], (), [("Read back", [words.check_line(c) for c in found.checks]), ("To be known", found.notes)])


def _engine_fit(found: EngineFit) -> Said:
    lead = f"{found.engine} {'loads' if found.loads else 'does NOT load'} this {found.form} ({found.source})."
    looked = [words.check_line(c) for c in found.checks]
    return Said([lead], (), [("Looked at", looked), ("With", found.options), ("What to do", found.advice)])


def _gate(found: Gate) -> Said:
    return Said([words.gate_line(found)])


KINDS: dict[type, Callable[[Any], Said]] = {
    Artifact: _artifact,
    Audit: _audit,
    Benchmarks: _benchmarks,
    Diagnosis: _diagnosis,
    EngineFit: _engine_fit,
    Environment: _environment,
    Estimate: _estimate,
    Evaluation: _evaluation,
    Evidence: _evidence,
    Exported: _exported,
    Gate: _gate,
    Plan: _plan,
    SelfCheck: _self_check,
    Tables: _tables,
    Verification: _verification,
    Watching: _watching,
}
