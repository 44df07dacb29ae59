"""One model asked in one way, item by item: what a comparison of methods is made of. The measures are those of
`rankwise eval`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rankwise.evaluate.closedbook import picked, right_answers, shares, slices
from rankwise.evaluate.exam import NO_CONVERSATION, NO_GENERAL, NO_PROBES
from rankwise.evaluate.findings import LONGEST_ANSWER
from rankwise.evaluate.paper import Paper, Written
from rankwise.evaluate.style import same_answer
from rankwise.evaluate.subject import Losses, Subject
from rankwise.evaluate.talk import form_notes
from rankwise.evaluate.workload import PROBE_TOKENS, SPARE_TOKENS
from rankwise.model.likelihood import Autocast
from rankwise.records.bakeoff import Said, Scores
from rankwise.records.past import Side
from rankwise.text.masks import Encoded


@dataclass(frozen=True)
class Scored:
    """What one model reached on a paper, and what it said.

    Attributes:
        notes: what was not measured, and what one should know of what was.
    """

    scores: tuple[Scores, ...]
    answers: tuple[Said, ...]
    seconds: float
    notes: tuple[str, ...]


@dataclass
class _Part:
    scores: list[Scores] = field(default_factory=list)
    answers: list[Said] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def score(paper: Paper, subject: Subject, autocast: Autocast) -> Scored:
    """Everything on the paper; what it does not ask is noted, never counted as zero. Metrics and items are the same for
    every model and way, in the same order.
    """
    began = time.monotonic()
    asked = _Asked(paper, subject, autocast)
    parts = [_held_out(asked), _replies(asked), _facts(asked), _choices(asked), _general(asked)]
    return Scored(
        scores=tuple(s for part in parts for s in part.scores),
        answers=tuple(a for part in parts for a in part.answers),
        seconds=time.monotonic() - began,
        notes=(*paper.notes, *(n for part in parts for n in part.notes)),
    )


@dataclass(frozen=True)
class _Asked:
    """A paper put to a model. What stands after the same examples is put together, so that they are read once."""

    paper: Paper
    subject: Subject
    autocast: Any

    def texts(self, what: str, prompts: Written[Any], tokens: int) -> list[str]:
        found: dict[int, str] = {}
        for changed in (True, False):
            numbers = prompts.numbers(changed)
            if numbers:
                alike = changed and self.paper.asking.alike
                said = self.subject.answers(what, [prompts.items[i] for i in numbers], tokens, alike=alike)
                found |= {i: self.paper.chat.decode(one.ids) for i, one in zip(numbers, said, strict=True)}
        return [found[i] for i in range(len(prompts.items))]

    def losses(self, what: str, rows: Written[Encoded]) -> Losses:
        if not self.paper.asking.alike:
            return self.subject.losses(what, rows.items, self.autocast)
        after, alone = rows.numbers(True), rows.numbers(False)
        together = self.subject.grouped(what, [[rows.items[i] for i in after]] if after else [], self.autocast)
        single = self.subject.losses(what, [rows.items[i] for i in alone], self.autocast)
        found = dict(zip([*after, *alone], [*(x for group in together for x in group), *single], strict=True))
        return [found[i] for i in range(len(rows.items))]

    def choices(self, what: str, rows: Written[list[Encoded]]) -> list[Losses]:
        """Of each question, the losses of its choices."""
        counts = [len(own) for own in rows.items]
        if self.paper.plain:
            flat = self.subject.losses(what, [row for own in rows.items for row in own], self.autocast)
        elif self.paper.asking.alike:
            every = [row for own in rows.items for row in own]
            changed = [yes for yes, count in zip(rows.changed, counts, strict=True) for _ in range(count)]
            flat = self.losses(what, Written(every, changed))
        else:
            return self.subject.grouped(what, rows.items, self.autocast)
        scored = iter(flat)
        return [[next(scored) for _ in range(count)] for count in counts]


def _held_out(asked: _Asked) -> _Part:
    return _Part([_loss("heldout_loss", "task", asked.losses("held-out loss", asked.paper.loss_rows))])


def _general(asked: _Asked) -> _Part:
    """Read plainly in every way: what stands in a prompt changes no weight, and can be left out of the next one."""
    rows = asked.paper.exam.data.general
    if not rows:
        return _Part(notes=[NO_GENERAL])
    losses = asked.subject.losses("general loss", rows, asked.autocast)
    notes = [] if asked.paper.plain else ["general rows are read plainly: what stands in a prompt changes no weight"]
    return _Part([_loss("general_loss", "forgetting", losses)], notes=notes)


def _replies(asked: _Asked) -> _Part:
    """Format where there is one, and equality with the rows' own answers where these are short."""
    paper = asked.paper
    exchanges, form = paper.exam.held_out, paper.exam.form
    if not exchanges:
        return _Part(notes=[NO_CONVERSATION])
    texts = asked.texts("answers", paper.replies, paper.room)
    same = [same_answer(e.expected, text) for e, text in zip(exchanges, texts, strict=True)]
    part = _Part(notes=form_notes(form, exchanges))
    ok: list[bool | None] = [True if equal else None for equal in same]  # other words may be as good
    if form:
        formed = [form.follows(text) for text in texts]
        part.scores.append(_share("format", "style", formed))
        ok = [*formed]
    if paper.room - SPARE_TOKENS <= LONGEST_ANSWER:
        part.scores.append(_share("exact_match", "task", same))
    side: Side = "style" if form else "task"
    part.answers = [
        Said(prompt=e.prompt, expected=e.expected, answer=text, ok=good, side=side)
        for e, text, good in zip(exchanges, texts, ok, strict=True)
    ]
    return part


def _facts(asked: _Asked) -> _Part:
    """The questions as given, then the slices of all wordings."""
    paper, wordings = asked.paper, asked.paper.exam.wordings
    if not wordings:
        return _Part(notes=[NO_PROBES])
    texts = asked.texts("closed-book facts", paper.questions, PROBE_TOKENS)
    right = right_answers(wordings, texts)
    part = _Part([_share("facts", "facts", right[: len(paper.exam.probes)])])
    for name, inside in slices(wordings, paper.exam.seen).items():
        part.scores.append(_share(name, "facts", shares(wordings, right, inside)))
    part.answers = [
        Said(prompt=w.question, expected=w.answer, answer=text, ok=ok, side="facts")
        for w, text, ok in zip(wordings, texts, right, strict=True)
    ]
    return part


def _choices(asked: _Asked) -> _Part:
    probes = asked.paper.choosing
    if not probes:
        return _Part()
    losses = asked.choices("multiple choice", asked.paper.choices)
    return _Part([_share("facts_choice", "facts", picked(probes, losses))])


def _share(metric: str, side: Side, values: Sequence[float]) -> Scores:
    return Scores(metric=metric, unit="share", side=side, higher_is_better=True, values=tuple(map(float, values)))


def _loss(metric: str, side: Side, losses: Losses) -> Scores:
    return Scores(
        metric=metric,
        unit="nats per token",
        side=side,
        higher_is_better=False,
        values=tuple(nats for nats, _ in losses),
        weights=tuple(float(count) for _, count in losses),
    )
