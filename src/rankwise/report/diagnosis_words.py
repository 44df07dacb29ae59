"""A diagnosis in words: the conclusion, the table of conditions and measures, and what to do next."""

from collections.abc import Sequence

from rankwise.records import Diagnosis, Measurement
from rankwise.report.plan_words import Passage
from rankwise.report.quantities import UNKNOWN, bounds, duration, measured, plain

CONCLUSIONS = {
    "style": "Style: the base lacks the manner of these answers, not their facts.",
    "knowledge": "Knowledge: the base lacks the facts of these answers.",
    "both": "Both: the base lacks the manner of these answers and their facts.",
    "prompting": "Prompting: the base, asked well, already answers as the data asks.",
    "cannot tell": "Cannot tell whether these answers ask for a manner or for facts.",
}
# Measure -> its name in the table, what it is.
MEASURES = {
    "format": ("format", "answers that follow the job's `format`"),
    "exact_match": ("equal", "answers equal to the row's own"),
    "facts": ("closed-book", "questions answered with the expected words; with-source: not closed-book"),
    "facts_paraphrased": ("in other words", "of these, questions in words that no training row uses"),
    "facts_choice": ("choice", "right choices by likelihood"),
    "calibration_error": ("calibration error", "mean distance of the model's probability from being right; 0 is best"),
    "loss": ("loss", "cross-entropy of right answers, nats per token"),
    "loss_names": ("loss: names", "on names and numbers that the question does not say"),
    "loss_own": ("loss: own", "on names and numbers that no example shows either"),
    "loss_rest": ("loss: rest", "on all other tokens"),
}


def conclusion_sentence(found: Diagnosis) -> str:
    """The headline."""
    return CONCLUSIONS[found.conclusion]


def share_lines(found: Diagnosis) -> list[str]:
    """The three shares, each with its interval and what it is a share of."""
    parts = (("behaviour", found.behaviour), ("knowledge", found.knowledge), ("prompting", found.prompting))
    return [f"{name}: {_number(m)}" + (f" ({_first(m.source)})" if m else "") for name, m in parts]


def heads(found: Diagnosis) -> list[str]:
    """Heads of the table: a column for each way of asking."""
    return ["", *(c.name for c in found.conditions)]


def rows(found: Diagnosis) -> list[list[str]]:
    """A row for each measure that at least one way of asking has; a dash where another lacks it."""
    return [
        [MEASURES[name][0], *(cell(c.measurements.get(name)) for c in found.conditions)]
        for name in measured_names(found)
    ]


def measured_names(found: Diagnosis) -> list[str]:
    return [name for name in MEASURES if any(name in c.measurements for c in found.conditions)]


def cell(m: Measurement | None) -> str:
    """41 % (31 to 52) · 2.18 (2.05 to 2.31)"""
    if m is None:
        return "-"
    if m.unit == "share":
        return f"{measured(m.value, m.unit)} ({bounds(m.interval, m.unit)})"
    return f"{m.value:.2f} ({m.interval[0]:.2f} to {m.interval[1]:.2f})"


def measure_lines(found: Diagnosis) -> list[str]:
    """What the rows mean."""
    return [f"{MEASURES[name][0]}: {MEASURES[name][1]}" for name in measured_names(found)]


def next_lines(found: Diagnosis) -> list[str]:
    """What to do with it."""
    k = len(found.examples)
    return {
        "style": ["`rankwise plan` with `goal: instruction`: a small adapter is enough for a manner."],
        "knowledge": [
            "Let the model look the answers up first (`retrieval: possible`): with the source it answers.",
            "Where that is impossible: `rankwise plan` with `goal: knowledge`, many wordings of each fact.",
        ],
        "both": [
            "Look the facts up (`retrieval: possible`) and train the manner: `rankwise plan` with `goal: instruction`.",
            "Where facts cannot be looked up: `rankwise plan` with `goal: knowledge`.",
        ],
        "prompting": [f"Do not train yet: put these {k} examples before the question." if k else "Do not train yet."],
        "cannot tell": [f"What would tell: {text}." for text in found.would_tell],
    }[found.conclusion]


def basis_line(found: Diagnosis) -> str:
    """Base loss, rows and seconds."""
    base = found.base_loss
    return (
        f"Base loss {base.value:.3f} nats per answer token (95 %: {bounds(base.interval, base.unit)}) on "
        f"{plain(found.rows)} held-out rows; took {duration(found.seconds)}."
    )


def passages(found: Diagnosis) -> list[Passage]:
    """What is said below the table, in order."""
    given = {
        "Why": found.reasons,
        "Shares of the gap": share_lines(found),
        "Next": next_lines(found),
        "Examples of the prompt": example_lines(found) if found.conclusion == "prompting" else (),
        "Measures": measure_lines(found),
        "Notes": found.notes,
    }
    return [Passage(title, tuple(lines)) for title, lines in given.items() if lines]


def example_lines(found: Diagnosis) -> Sequence[str]:
    return [f"{e.question} -> {e.answer}".replace("\n", " ") for e in found.examples]


def _number(m: Measurement | None) -> str:
    if m is None:
        return UNKNOWN
    return f"{measured(m.value, m.unit)} (95 %: {bounds(m.interval, m.unit)})"


def _first(source: str) -> str:
    """What was measured, without how its interval was made."""
    return source.split(";", 1)[0]
