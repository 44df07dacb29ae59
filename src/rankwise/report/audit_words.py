"""An audit in words: the verdict, what was counted, each finding with its rows, and rows as the model sees them."""

from collections.abc import Sequence

from rankwise.records import Audit
from rankwise.records.audit import AuditFinding, Level, Piece, TrainedView

LEVELS: dict[Level, str] = {"fault": "fault", "answered": "answered", "warning": "warning"}
WIDEST = 40  # characters of the longest bar
TRAINED = ("[", "]")  # around what is learned
LOST = ("{", "}")  # around what max_length takes away
TERMS = (
    ("Token", "The piece of text a model reads and writes, about three quarters of a word."),
    ("Learned", "Tokens whose prediction is trained: what the assistant says, its end included; of plain text all."),
    ("Chat template", "The model's own form of writing a conversation as one text, with its special tokens."),
    (
        "max_length",
        "Tokens of the longest row that is trained; the key on_long of a job says what becomes of longer ones.",
    ),
    ("Held-out rows", "Rows that are kept from training to measure on; here a tenth, as by default."),
    ("Near duplicate", "Rows that share nearly all of their words: the model would see them too often."),
)


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
    return f"{LEVELS[found.level]}, {found.check}: {found.text}. {fix_sentence(found)} ({where}{more})"


def fix_sentence(found: AuditFinding) -> str:
    """Mend or remove them."""
    return f"{found.fix[:1].upper()}{found.fix[1:]}."


def places_text(found: AuditFinding) -> str:
    """Line 31, 40 and 41, 7 more of 50 rows looked at; with their files where there are several."""
    files = {place.path for place in found.places}
    several = len(files) > 1
    named = [f"{p.path.name} {p.line:,}" if several else f"{p.line:,}" for p in found.places]
    more = found.count - len(named)
    lines = f"{'line' if len(named) == 1 else 'lines'} {', '.join(named)}{f' and {more:,} more' if more > 0 else ''}"
    return f"{lines}; of {found.of:,} {found.unit} that were looked at" if named else f"of {found.of:,} {found.unit}"


def any_lost(found: Audit) -> bool:
    """Does one of the decoded rows lose something to max_length?"""
    return any(piece.lost for view in found.views for piece in view.pieces)


def view_lines(view: TrainedView) -> list[str]:
    """A row as the model sees it, what is learned in square brackets, and in braces what is too long to be seen."""
    text = "".join(_marked(piece) for piece in view.pieces)
    marks = "in brackets: what is learned"
    if any(piece.lost for piece in view.pieces):
        marks += "; in braces: what is left out, since the row is too long"
    return [f"{view.place.path}:{view.place.line}, {view.tokens:,} tokens; {marks}", text, ""]


def _marked(piece: Piece) -> str:
    first, last = LOST if piece.lost else TRAINED if piece.trained else ("", "")
    return f"{first}{piece.text}{last}"


def _many(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
