"""From measurements to a conclusion: three questions, each answered yes, no or cannot tell by an interval beside a
threshold. docs/diagnose.md states the rule in words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rankwise.evaluate.asking import Way
from rankwise.evaluate.findings import Facts, Inquiry, Told, tokens, total
from rankwise.evaluate.measures import mean_loss, share_of, share_of_loss
from rankwise.evaluate.paired import FEWEST_ROWS, compare_shares
from rankwise.records.base import Interval
from rankwise.records.diagnosis import Conclusion, Measurement
from rankwise.records.job import AnswerFormat

Answer = Literal["yes", "no", "cannot tell"]

# Share of the zero-shot loss that examples must close to show a manner that the base lacks.
MANNER = 0.20
# Share of the zero-shot loss on a row's own names and numbers that its source must close beyond examples.
OWN_FACTS = 0.05
# Share of taught closed-book questions that the source must answer beyond examples.
TAUGHT = 0.20
# Share of answers that must be right for a gap to be closed.
CLOSED = 0.90
# Nats per token of wording below which it is closed: a geometric mean probability of 0.9 a token.
CLOSED_LOSS = 0.105


@dataclass
class Verdict:
    """The conclusion and what it stands on."""

    conclusion: Conclusion
    behaviour: Measurement | None
    knowledge: Measurement | None
    prompting: Measurement | None
    reasons: list[str]
    would_tell: list[str] = field(default_factory=list)


@dataclass
class Finding:
    """An answer to one of the three questions, the number behind it, and the sentence that says so."""

    answer: Answer
    number: Measurement | None
    text: str


def above(interval: Interval, threshold: float) -> Answer:
    """Is the number above the threshold? Cannot tell while the threshold lies inside its interval."""
    if interval[0] > threshold:
        return "yes"
    return "no" if interval[1] < threshold else "cannot tell"


def conclude(inquiry: Inquiry, facts: Facts, ways: Sequence[Way], answer_format: AnswerFormat | None) -> Verdict:
    """Knowledge first, then manner, then whether examples already close the manner."""
    zero, shown = inquiry.told[ways[0].name], inquiry.told[_most_examples(ways).name]
    source = inquiry.told[ways[-1].name] if ways[-1].source else None
    examples = _most_examples(ways).shots
    taught = _taught(inquiry, shown, source)
    know = taught or _own_facts(facts, zero, shown, source, examples)
    manner = _stated_manner(zero) if answer_format else _manner(zero, shown, examples)
    closed = _closed(inquiry, facts, shown, examples, structured=bool(answer_format and answer_format.json_schema))
    judged = answer_format is not None or taught is None or know.answer != "yes"
    findings = [know, manner, closed]
    if not judged:
        manner.text += (
            "; the job states closed-book questions and no `format`, so the questions decide and wording does not"
        )
    conclusion = _combine(know.answer, manner.answer if judged else "no", closed.answer, answer_format is not None)
    return Verdict(
        conclusion=conclusion,
        behaviour=_closed_by_examples(zero, shown, examples),
        knowledge=know.number,
        prompting=closed.number,
        reasons=[f.text for f in findings if f.text],
        would_tell=_would_tell(know, manner, closed, inquiry, answer_format) if conclusion == "cannot tell" else [],
    )


def _combine(know: Answer, manner: Answer, closed: Answer, stated: bool) -> Conclusion:
    if know == "yes":
        return "both" if manner == "yes" and closed == "no" else "knowledge"
    if know == "cannot tell" or manner == "cannot tell":
        return "cannot tell"
    if manner == "no":
        return "prompting" if stated else "cannot tell"
    return {"yes": "prompting", "no": "style", "cannot tell": "cannot tell"}[closed]  # type: ignore[return-value]


def _most_examples(ways: Sequence[Way]) -> Way:
    return max((w for w in ways if not w.source), key=lambda w: w.shots)


# -- does it lack knowledge? ---------------------------------------------------------------------------


def _taught(inquiry: Inquiry, shown: Told, source: Told | None) -> Finding | None:
    """By closed-book questions whose answers stand in training rows; None with fewer than six of them."""
    if source is None:
        return None
    pairs = [(a, b) for a, b in zip(shown.right, source.right, strict=True) if a is not None and b is not None]
    if len(pairs) < FEWEST_ROWS:
        return None
    closed_book, open_book = [a for a, _ in pairs], [b for _, b in pairs]
    compared = compare_shares("facts", closed_book, open_book, f"{len(pairs)} questions that training rows answer")
    number = Measurement(
        value=compared.difference,
        interval=compared.difference_interval,
        unit="share",
        items=len(pairs),
        source=f"right with the source and not without it; {compared.source}",
    )
    answer = above(number.interval, TAUGHT)
    verb = {"yes": "lacks", "no": "does not lack", "cannot tell": "may lack"}[answer]
    return Finding(
        answer,
        number,
        f"Knowledge: it {verb} the facts. Of {len(pairs)} closed-book questions that training rows answer, it answers "
        f"{_share(share_of(closed_book, ''))} after examples and {_share(share_of(open_book, ''))} with the source in "
        f"the prompt: {_points(number)} (threshold {TAUGHT * 100:.0f} points)",
    )


def _own_facts(facts: Facts, zero: Told, shown: Told, source: Told | None, examples: int) -> Finding:
    """By the loss on names and numbers of each row's own."""
    rows, marked = sum(bool(own.any()) for own in facts.own), int(tokens(facts.own).sum())
    carried = f"{marked} answer tokens in {rows} of {len(facts.own)} held-out rows"
    if rows < FEWEST_ROWS:
        return Finding(
            "no",
            None,
            f"Knowledge: held-out answers hold no facts of their own. Only {carried} are names or numbers that neither "
            f"the question nor {examples} examples show (threshold {FEWEST_ROWS} rows)",
        )
    if source is None:
        return Finding("cannot tell", None, "Knowledge: no source of an answer was found, so none could be shown")
    whole = total(zero.losses, facts.own)
    number = share_of_loss(
        total(shown.losses, facts.own) - total(source.losses, facts.own),
        whole,
        "share of the zero-shot loss on names and numbers of a row's own that its source closes beyond examples",
    )
    assert number is not None
    losses = [mean_loss(total(t.losses, facts.own), tokens(facts.own), "") for t in (zero, shown, source)]
    answer = above(number.interval, OWN_FACTS)
    verb = {"yes": "lacks", "no": "shows no lack of", "cannot tell": "may lack"}[answer]
    path = " -> ".join(f"{m.value:.2f}" for m in losses if m)
    return Finding(
        answer,
        number,
        f"Knowledge: it {verb} facts that a source holds. Names and numbers of the rows' own ({carried}) cost {path} "
        f"nats per token zero-shot, after {examples} examples, and with the source: the source closes "
        f"{_share(number)} beyond examples (threshold {_percent(OWN_FACTS)})",
    )


# -- does it lack the manner? --------------------------------------------------------------------------


def _stated_manner(zero: Told) -> Finding:
    """By the job's format, where answers were generated; else nothing can be said."""
    if not zero.formed:
        return Finding("cannot tell", None, "Manner: no answer was checked against the job's `format`")
    formed = share_of(zero.formed, "well-formed zero-shot answers")
    good = above(formed.interval, CLOSED)
    answer: Answer = {"yes": "no", "no": "yes", "cannot tell": "cannot tell"}[good]  # type: ignore[assignment]
    verb = {"yes": "lacks", "no": "has", "cannot tell": "may lack"}[answer]
    return Finding(
        answer,
        formed,
        f"Manner: it {verb} the format. {_share(formed)} of zero-shot answers are well formed "
        f"(threshold {_percent(CLOSED)})",
    )


def _manner(zero: Told, shown: Told, examples: int) -> Finding:
    """By the loss that examples close."""
    number = _closed_by_examples(zero, shown, examples)
    if number is None or examples == 0:
        return Finding("cannot tell", None, "Manner: no examples fit into the prompt, so none could show it")
    answer = above(number.interval, MANNER)
    verb = {"yes": "lacks the manner", "no": "shows no lack of manner", "cannot tell": "may lack the manner"}[answer]
    return Finding(
        answer,
        number,
        f"Manner: it {verb} of these answers. {examples} examples close {_share(number)} of its loss on them "
        f"(threshold {_percent(MANNER)})",
    )


def _closed_by_examples(zero: Told, shown: Told, examples: int) -> Measurement | None:
    if not examples:
        return None
    before, after = total(zero.losses), total(shown.losses)
    return share_of_loss(before - after, before, f"zero-shot loss on held-out answers that {examples} examples close")


# -- do examples already close it? ---------------------------------------------------------------------


def _closed(inquiry: Inquiry, facts: Facts, shown: Told, examples: int, *, structured: bool) -> Finding:
    """By generated answers where the job's format can be checked, else by the loss on wording."""
    if shown.formed:
        right = [f and (s or not structured) for f, s in zip(shown.formed, shown.same, strict=True)]
        what = "well formed and equal to the row's own" if structured else "well formed"
        number = share_of(right, f"answers after {examples} examples that are {what}")
        return _closed_finding(
            above(number.interval, CLOSED),
            number,
            examples,
            f"{_share(number)} of answers are {what}",
            _percent(CLOSED),
        )
    rest = [~names for names in facts.names]
    loss = mean_loss(total(shown.losses, rest), tokens(rest), f"loss on wording after {examples} examples")
    assert loss is not None
    open_: Answer = above(loss.interval, CLOSED_LOSS)
    answer: Answer = {"yes": "no", "no": "yes", "cannot tell": "cannot tell"}[open_]  # type: ignore[assignment]
    said = (
        f"wording still costs {loss.value:.3f} nats per token (95 %: {loss.interval[0]:.3f} to {loss.interval[1]:.3f})"
    )
    finding = _closed_finding(answer, loss, examples, said, f"{CLOSED_LOSS} nats")
    finding.number = None
    return finding


def _closed_finding(answer: Answer, number: Measurement, examples: int, said: str, threshold: str) -> Finding:
    verb = {"yes": "already closes", "no": "does not close", "cannot tell": "may close"}[answer]
    return Finding(
        answer,
        number,
        f"Prompting: a prompt with {examples} examples {verb} the manner. With it {said} (threshold {threshold})",
    )


def _would_tell(
    know: Finding, manner: Finding, closed: Finding, inquiry: Inquiry, answer_format: AnswerFormat | None
) -> list[str]:
    """The two things that would decide, the most telling first."""
    found = []
    unsure = "cannot tell" in (know.answer, manner.answer, closed.answer)
    if unsure:
        width = len(inquiry.rows)
        found.append(
            f"more held-out rows (`data.validation`; {width} were asked, four times as many halve the intervals)"
        )
    if not inquiry.questions:
        found.append("closed-book questions with short answers that training rows state (`data.facts`)")
    if answer_format is None:
        found.append("what a well-formed answer is (`format`: a JSON schema or a regular expression)")
    return found[:2]


def _share(m: Measurement) -> str:
    return f"{_percent(m.value)} (95 %: {_percent(m.interval[0])} to {_percent(m.interval[1])})"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _points(m: Measurement) -> str:
    low, high = m.interval
    return f"{m.value * 100:+z.0f} points (95 %: {low * 100:+z.0f} to {high * 100:+z.0f})"
