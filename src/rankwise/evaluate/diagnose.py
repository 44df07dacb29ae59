"""Style or knowledge? The untouched base is asked in several ways, and what changes its answers tells what it lacks."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankwise.errors import DataError
from rankwise.evaluate.asking import Asked, Base, Way, short_source
from rankwise.evaluate.conclude import Verdict, conclude
from rankwise.evaluate.findings import Inquiry, Question, condition, facts_of
from rankwise.evaluate.knowledge import asked_otherwise, states, wording
from rankwise.evaluate.prompts import (
    SHOTS,
    SOURCES,
    Library,
    Room,
    assign,
    draw_examples,
    room_of,
    shots_that_fit,
)
from rankwise.evaluate.style import Exchange, Rule, exchanges, format_rule
from rankwise.model.generate import positions_of
from rankwise.records import Job
from rankwise.records.diagnosis import Condition, Diagnosis, Shown
from rankwise.text.formats import Row
from rankwise.text.probes import Probe
from rankwise.text.template import ChatText

QUESTIONS = 64  # wordings of probes that are asked
# Training rows near a question that its examples shall not hold, and among which a probe's source is looked for.
NEAR = 10
Progress = Callable[[str, int, int], None]
ZERO = Way("zero-shot", 0)


@dataclass(frozen=True)
class Material:
    """What the base is asked with.

    Attributes:
        training: rows that examples and sources are taken from.
        held_out: rows whose questions are asked.
        probes: closed-book questions.
        contexts: source of a held-out row by its file and line, where the file gives one.
    """

    training: Sequence[Row]
    held_out: Sequence[Row]
    probes: Sequence[Probe]
    contexts: Mapping[tuple[Path, int], str] = field(default_factory=dict)


def diagnose(
    job: Job, material: Material, model: Any, chat: ChatText, *, rows: int, seed: int, progress: Progress
) -> Diagnosis:
    """Ask the base zero-shot, after 1, 4 and 8 examples, and with the answer's source; conclude.

    The caller adds the hashes.

    Raises:
        DataError: no held-out or no training row is a conversation, or none fits the model's positions.
    """
    began, notes = time.monotonic(), list[str]()
    setting = _Setting(chat, material, room_of(positions_of(model)), seed, notes)
    asked = setting.held_out(rows)
    questions = setting.questions()
    draws = [[setting.training[i] for i in draw] for draw in setting.draws]
    base = Base(model, chat, draws, progress)
    rule: Rule | None = format_rule(job.format) if job.format else None
    best = max(setting.shots, default=0)
    shown = [" ".join(f"{e.prompt} {e.expected}" for e in draws[a.draw][:best]) for a in asked]
    inquiry = Inquiry(base, asked, questions, rule, setting.room.answer, shown)
    ways = [ZERO, *(Way(f"few-shot-{k}", k) for k in setting.shots)]
    if all(a.source is not None for a in asked):
        ways.append(Way("with-source", best, source=True))
    for way in ways:
        inquiry.ask(way, rests=way.source or way.shots in (0, best))
    facts = facts_of(inquiry)
    conditions = tuple(condition(way, inquiry, facts) for way in ways)
    verdict = conclude(inquiry, facts, ways, job.format)
    notes += _unmeasured(job, inquiry)
    return _diagnosis(verdict, conditions, draws[0][:best], len(asked), time.monotonic() - began, notes)


def _diagnosis(
    verdict: Verdict,
    conditions: tuple[Condition, ...],
    examples: Sequence[Exchange],
    rows: int,
    seconds: float,
    notes: list[str],
) -> Diagnosis:
    return Diagnosis(
        conclusion=verdict.conclusion,
        behaviour=verdict.behaviour,
        knowledge=verdict.knowledge,
        prompting=verdict.prompting,
        base_loss=conditions[0].measurements["loss"],
        reasons=tuple(verdict.reasons),
        would_tell=tuple(verdict.would_tell),
        conditions=conditions,
        examples=tuple(Shown(question=e.prompt, answer=e.expected) for e in examples),
        rows=rows,
        seconds=seconds,
        base_hash=None,
        data_hash="",
        notes=tuple(notes),
    )


class _Setting:
    """Rows, examples and sources, drawn once."""

    def __init__(self, chat: ChatText, material: Material, room: Room, seed: int, notes: list[str]):
        self._chat, self._material, self._seed, self._notes = chat, material, seed, notes
        self.room = room
        self.training = exchanges(material.training)
        if not self.training:
            raise _no_conversation("training", material.training)
        self._library = Library(self.training)
        self.draws = draw_examples(len(self.training), seed)
        self.shots = shots_that_fit([[self.training[i] for i in draw] for draw in self.draws], chat, room)
        if missing := [k for k in SHOTS if k not in self.shots]:
            notes.append(
                f"few-shot with {' and '.join(map(str, missing))} examples was not asked: there are "
                f"{len(self.training)} training rows, and {room.examples:,} positions for examples"
            )

    def held_out(self, most: int) -> list[Asked]:
        """At most `most` held-out rows in a random order that the seed fixes."""
        given = [(row, found[0]) for row in self._material.held_out if (found := exchanges([row]))]
        if not given:
            raise _no_conversation("held-out", self._material.held_out)
        fitting = [(row, e) for row, e in given if self._fits(e)]
        if not fitting:
            raise DataError(
                given[0][0].path,
                given[0][0].line,
                f"no held-out question fits into {self.room.question:,} tokens, this one the first",
                expected="a question that leaves room for examples, a source and an answer",
                fix="shorten the prompts, or take a model with more positions",
            )
        if len(fitting) < len(given):
            self._notes.append(
                f"{len(given) - len(fitting)} of {len(given)} held-out questions are longer than "
                f"{self.room.question:,} tokens and were not asked"
            )
        chosen = random.Random(f"rows {self._seed}").sample(fitting, min(most, len(fitting)))
        if len(chosen) < len(fitting):
            self._notes.append(f"{len(chosen)} of {len(fitting)} held-out rows were asked, drawn at random")
        return self._asked(chosen)

    def _asked(self, chosen: Sequence[tuple[Row, Exchange]]) -> list[Asked]:
        near = [self._library.nearest(e.prompt, NEAR) for _, e in chosen]
        draws = self._assign(near)
        given = [(row.path, row.line) in self._material.contexts for row, _ in chosen]
        found = sum(map(bool, near))
        self._notes.append(
            "source of a held-out answer: the row's own `context`"
            if all(given)
            else f"source of a held-out answer: the {SOURCES} training rows nearest to its question by BM25 (for "
            f"{found} of {len(chosen)} rows there was one)"
        )
        asked = []
        for (row, exchange), rows, draw in zip(chosen, near, draws, strict=True):
            texts = [self._library.texts[i] for i in rows[:SOURCES]]
            if own := self._material.contexts.get((row.path, row.line)):
                texts = [own]
            source = short_source(texts or ["(nothing was found)"], self.room.source, self._chat)
            asked.append(Asked(exchange.messages, exchange.expected, draw, source))
        return asked

    def _fits(self, exchange: Exchange) -> bool:
        return len(self._chat.encode_prompt(exchange.messages)) <= self.room.question

    def _assign(self, near: Sequence[Sequence[int]]) -> list[int]:
        best = max(self.shots, default=0)
        return assign(near, [draw[:best] for draw in self.draws])

    def questions(self) -> list[Question]:
        """Wordings of the probes with their sources: training rows near the question that state the answer."""
        trained = {wording(e.prompt) for e in self.training}
        asked = [(p, text) for p in self._material.probes for text in (p.question, *p.paraphrases)]
        if len(asked) > QUESTIONS:
            self._notes.append(f"{QUESTIONS} of {len(asked)} closed-book questions were asked, drawn at random")
            asked = random.Random(f"questions {self._seed}").sample(asked, QUESTIONS)
        near = [self._library.nearest(text, NEAR) for _, text in asked]
        found = []
        for (probe, text), rows, draw in zip(asked, near, self._assign(near), strict=True):
            holding = [t for i in rows if states(probe.answer, t := self._library.texts[i])]
            source = short_source(holding[:1], self.room.source, self._chat) if holding else None
            one = Asked(({"role": "user", "content": text},), probe.answer, draw, source)
            found.append(Question(one, probe, asked_otherwise(text, trained)))
        if lacking := sum(q.asked.source is None for q in found):
            self._notes.append(
                f"the answers of {lacking} of {len(found)} closed-book questions stand in no training row near to "
                "them: this data does not teach them, so they say nothing about it"
            )
        return found


def _no_conversation(which: str, rows: Sequence[Row]) -> DataError:
    return DataError(
        rows[0].path if rows else "data",
        None,
        f"there is no {which} row with a question and its answer",
        expected="conversations (messages, alpaca, sharegpt, prompt/completion); documents ask nothing",
        fix="for documents, write closed-book questions as prompt/completion rows and diagnose those",
    )


def _unmeasured(job: Job, inquiry: Inquiry) -> list[str]:
    notes = []
    if job.format is None:
        notes.append("no `format` in the job, so format adherence was not measured")
    if inquiry.room_to_answer() is None:
        notes.append("right answers are long, so equality with them was not measured; losses stand for it")
    if not inquiry.questions:
        notes.append("no `data.facts` in the job, so closed-book accuracy and calibration were not measured")
    return notes
