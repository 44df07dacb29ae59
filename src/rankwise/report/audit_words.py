"""An audit in words: the verdict, what was counted, each finding with its rows, and rows as the model sees them."""

from collections.abc import Sequence

from rankwise.records import Audit
from rankwise.records.audit import AuditFinding, Level, TrainedView

LEVELS: dict[Level, str] = {"fault": "fault", "answered": "answered", "warning": "warning"}
WIDEST = 40  # characters of the longest bar
TRAINED = ("[", "]")  # around what is learned


def verdict_sentence(found: Audit) -> str:
    """The headline."""
    faults, warnings = len(found.faults), sum(f.level == "warning" for f in found.findings)
    if faults:
        return f"{_many(faults, 'fault')}: training on these rows is refused."
    if warnings:
        return f"No fault, {_many(warnings, 'warning')}."
    return "No fault found."


def counted_lines(found: Audit) -> list[str]:
    """Rows, tokens and lengths."""
    share, lengths = found.supervised_share, found.lengths
    return [
        f"{found.rows:,} rows ({found.format}), {found.tokens:,} tokens by tokenizer and template of {found.model}",
        f"{found.supervised_tokens:,} answer tokens are learned, {found.supervised_tokens / found.tokens:.1%} of all; "
        f"of a row {share.least:.1%} to {share.most:.1%}, in the middle {share.median:.1%}",
        f"{lengths.least:,.0f} to {lengths.most:,.0f} tokens a row, in the middle {lengths.median:,.0f}, 95 % of rows "
        f"up to {lengths.p95:,.0f}; max_length {found.max_length:,}",
    ]


def checked_line(found: Audit) -> str:
    """How much each check has looked at."""
    return "Looked at: " + ", ".join(f"{c.check} ({c.amount:,} {c.unit})" for c in found.checked) + "."


def histogram_lines(found: Audit) -> list[str]:
    """Rows by length, as bars."""
    most = max(rows for _, rows in found.length_histogram)
    bars = ((upper, rows, "#" * -(-WIDEST * rows // most)) for upper, rows in found.length_histogram)
    return [f"up to {upper:>6,} tokens  {rows:>8,} rows  {bar}".rstrip() for upper, rows, bar in bars]


def finding_lines(findings: Sequence[AuditFinding]) -> list[str]:
    """A line each, faults first."""
    order = list(LEVELS)
    return [_line(f) for f in sorted(findings, key=lambda f: order.index(f.level))]


def _line(found: AuditFinding) -> str:
    where = ", ".join(f"{p.path}:{p.line}" for p in found.places)
    more = ", ..." if found.count > len(found.places) else ""
    fix = found.fix[:1].upper() + found.fix[1:]
    return f"{LEVELS[found.level]}, {found.check}: {found.text}. {fix}. ({where}{more})"


def view_lines(view: TrainedView) -> list[str]:
    """A row as the model sees it, what is learned in square brackets."""
    first, last = TRAINED
    text = "".join(f"{first}{p.text}{last}" if p.trained else p.text for p in view.pieces)
    return [
        f"{view.place.path}:{view.place.line}, {view.tokens:,} tokens; in brackets: what is learned",
        text,
        "",
    ]


def _many(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
