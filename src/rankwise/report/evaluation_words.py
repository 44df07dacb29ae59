"""Sentences and lists about an evaluation: what was lost, what is sure and wrong, gates, the passages of `eval`."""

from collections.abc import Sequence

from rankwise.records import Answer, Comparison, Evaluation, Gate, Reliability, Tendency
from rankwise.records.evidence import CONFIDENT
from rankwise.report.event_words import comparison_line
from rankwise.report.learned_words import comparison_of
from rankwise.report.quantities import UNKNOWN, bounds, count, difference, measured, share, with_interval

MOST_LINES = 8  # of a list in the terminal; the whole stands in evidence.json
LONGEST = 120  # characters of an answer in a line
GROUPS = (
    ("How it talks", ("format", "exact_match", "judge", "refusals", "repetition", "loops", "cut_off", "heldout_loss")),
    (
        "What it knows",
        (
            "facts",
            "facts_exact",
            "facts_normalised",
            "facts_f1",
            "facts_seen",
            "facts_unseen",
            "facts_reversed",
            "facts_choice",
        ),
    ),
    ("How sure it is", ("confident_wrong", "calibration_error", "calibration_error_choice")),
    ("What it could do before", ("general_loss",)),
)
TENDENCIES = {
    "answer_length": "Length of an answer",
    "length_ratio": "Length of all answers over that of the rows' own",
    "length_right": "Correlation of length with being right, held-out answers",
    "refused_facts": "Closed-book questions that it declines to answer",
    "length_right_facts": "Correlation of length with being right, facts",
    "facts_kept": "Facts that the base knew and it still tells",
}


def lost_facts(evaluation: Evaluation) -> list[Answer]:
    """Facts that the base told and the tuned model does not, in the order of the file."""
    return [a for a in evaluation.answers if a.kind == "fact" and a.base_ok and not a.tuned_ok]


def confident_and_wrong(evaluation: Evaluation) -> list[Answer]:
    """Wrong answers of the tuned model to closed-book questions that it is confident of, the surest first."""
    wrong = [a for a in evaluation.answers if a.kind == "fact" and not a.tuned_ok and (a.tuned_sure or 0) >= CONFIDENT]
    return sorted(wrong, key=lambda a: -(a.tuned_sure or 0))


def kept_sentence(evaluation: Evaluation) -> str | None:
    """What is left of the facts that the base knew; None where facts were not asked."""
    asked = [a for a in evaluation.answers if a.kind == "fact"]
    if not asked:
        return None
    knew, lost = sum(a.base_ok for a in asked), len(lost_facts(evaluation))
    other = "the untouched base" if evaluation.against is None else evaluation.against
    if not knew:
        return f"Of {count(len(asked))} facts {other} knew none, so there was none to lose."
    kept = next((t.tuned for t in evaluation.tendencies if t.name == "facts_kept"), None)
    span = f" ({with_interval(kept.value, kept.interval, kept.unit)} kept)" if kept else ""
    return f"Of {count(knew)} facts that {other} knew it lost {count(lost)}{span}."


def confident_sentence(evaluation: Evaluation) -> str | None:
    """How often it is sure and wrong; None where it was not measured."""
    found = comparison_of(evaluation, "confident_wrong")
    if found is None:
        return None
    return (
        f"Confident and wrong: {share(found.tuned)} of its answers to closed-book questions are wrong at a mean "
        f"probability of {share(CONFIDENT)} or more (before: {share(found.base)})."
    )


def answer_line(answer: Answer) -> str:
    """ "What dose?" -> "40 mg" at 93 %; right is "35 mg"."""
    sure = f" at {share(answer.tuned_sure)}" if answer.tuned_sure is not None else ""
    return f'"{_cut(answer.prompt)}" -> "{_cut(answer.tuned)}"{sure}; right is "{_cut(answer.expected)}"'


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= LONGEST else flat[: LONGEST - 1] + "…"


def tendency_line(tendency: Tendency) -> str:
    """Length of an answer: 120 tokens -> 41 tokens."""
    name = TENDENCIES.get(tendency.name, tendency.name)
    sides = [m for m in (tendency.base, tendency.tuned) if m is not None]
    if not sides:
        return f"{name}: {UNKNOWN}"
    said = [with_interval(m.value, m.interval, m.unit) if m else UNKNOWN for m in (tendency.base, tendency.tuned)]
    return f"{name}: {said[1] if tendency.name == 'facts_kept' else ' -> '.join(said)}, {count(sides[0].items)} items"


def reliability_lines(reliability: Reliability) -> list[str]:
    """Answers at 90 to 100 %: 6, right 33 %, at a mean probability of 94 %. Of the tuned model, where it has any."""
    name = {"answers": "Answers", "choices": "Choices"}[reliability.kind]
    return [
        f"{name} at {bounds((b.low, b.high), 'share')} %: {count(b.items)}, right {share(b.accuracy)}, at a mean "
        f"probability of {share(b.confidence)}"
        for b in reliability.tuned
        if b.items
    ]


def gate_line(gate: Gate) -> str:
    """NOT met: `facts>=0.6`: facts is 3 %, 57 points too low."""
    if gate.value is None or gate.unit is None:
        return f"NOT met: `{gate.requirement}`: {gate.name} was not measured."
    sided = ".difference" in gate.name
    now = difference(gate.value, gate.unit) if sided else measured(gate.value, gate.unit)
    if gate.met:
        return f"met: `{gate.requirement}`: {gate.name} is {now}."
    gap = abs(gate.limit - gate.value)
    short = "low" if gate.comparison in (">=", ">") else "high"
    by = difference(gap, gate.unit).removeprefix("+") if gap else f"exactly at the limit, and must be {_side(gate)} it"
    return f"NOT met: `{gate.requirement}`: {gate.name} is {now}, {by}{f' too {short}' if gap else ''}."


def _side(gate: Gate) -> str:
    return "above" if gate.comparison == ">" else "below"


def comparison_groups(comparisons: Sequence[Comparison]) -> list[tuple[str, list[Comparison]]]:
    """Comparisons by what they are about; the user's own metrics stand by themselves."""
    known = {name for _, names in GROUPS for name in names}
    groups = [(title, [c for n in names for c in comparisons if c.metric == n]) for title, names in GROUPS]
    groups.insert(2, ("Metrics of your own", [c for c in comparisons if c.metric not in known]))
    return [(title, found) for title, found in groups if found]


def evaluation_passages(evaluation: Evaluation) -> list[tuple[str, list[str]]]:
    """(title, lines) of everything that was found, in the order of reading."""
    found = [(title, [comparison_line(c) for c in group]) for title, group in comparison_groups(evaluation.comparisons)]
    bins = [line for plot in evaluation.reliability for line in reliability_lines(plot)]
    found.append(("As sure as it is right, the tuned model", bins))
    found.append(("Neither better nor worse by itself", [tendency_line(t) for t in evaluation.tendencies]))
    for title, answers in (
        ("Facts that were known before and are lost", lost_facts(evaluation)),
        ("Confident and wrong, the surest first", confident_and_wrong(evaluation)),
    ):
        lines = [answer_line(a) for a in answers[:MOST_LINES]]
        if more := len(answers) - len(lines):
            lines.append(f"{count(more)} more in evidence.json")
        found.append((title, lines))
    found.append(("Not measured, or to be known", list(evaluation.notes)))
    return found
