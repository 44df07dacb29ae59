"""What the base was asked, and what came of it under each condition, before anybody judges it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp

import numpy as np

from rankwise.evaluate.asking import Asked, Base, Way, fact_tokens
from rankwise.evaluate.calibration import calibration
from rankwise.evaluate.knowledge import answer_rows, belief, chosen, states
from rankwise.evaluate.measures import mean_loss, share_of
from rankwise.evaluate.style import Rule, same_answer
from rankwise.evaluate.workload import PROBE_TOKENS, SPARE_TOKENS
from rankwise.records.diagnosis import Condition, Measurement
from rankwise.text.masks import Encoded
from rankwise.text.probes import Probe

# Held-out rows that are answered in full, and the longest right answer (in tokens) of which equality means something.
ANSWERED = 48
LONGEST_ANSWER = 96
# Rows and questions that are answered where no conclusion rests on it: answers are what takes time.
GLIMPSE = 16
Losses = list[np.ndarray]


@dataclass(frozen=True)
class Question:
    """A wording of a probe.

    Attributes:
        otherwise: no training row asks it in these words.
    """

    asked: Asked
    probe: Probe
    otherwise: bool


@dataclass
class Told:
    """What came of one way of asking; lists are in the order of the rows or the questions.

    Attributes:
        losses: nats of the first tokens of each held-out row's answer.
        formed, same: of the answered rows: well formed, and equal to the row's answer.
        right: questions answered rightly; None for one that was not asked this way.
        picked: choices picked rightly, of questions with choices.
        sure: (probability of the answer or choice, was it right).
    """

    losses: Losses = field(default_factory=list)
    formed: list[bool] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)
    right: list[bool | None] = field(default_factory=list)
    picked: list[bool] = field(default_factory=list)
    sure: list[tuple[float, bool]] = field(default_factory=list)


@dataclass
class Inquiry:
    """All that is asked of a base.

    Attributes:
        rows: held-out rows.
        questions: wordings of the closed-book probes.
        rule: what a well-formed answer is; None where the job does not say.
        most: tokens of an answer that are scored.
        shown: for each row, the text of the examples before it.
    """

    base: Base
    rows: Sequence[Asked]
    questions: Sequence[Question]
    rule: Rule | None
    most: int
    shown: Sequence[str]
    told: dict[str, Told] = field(default_factory=dict)

    def ask(self, way: Way, *, rests: bool) -> None:
        """Put everything to the base in one way.

        rests: a conclusion rests on it; else all losses are found, and only a few answers.
        """
        told = self.told[way.name] = Told()
        told.losses = self.base.answer_losses(f"{way.name}, losses", self.rows, way, self.most)
        self._answer(way, told, ANSWERED if rests and not way.source else GLIMPSE)
        self._probe(way, told, len(self.questions) if rests else GLIMPSE)

    def room_to_answer(self) -> int | None:
        """Tokens an answer may take; None where right answers are too long for equality to mean anything."""
        longest = max((len(self.base.chat.encode(a.expected)) for a in self.rows[:ANSWERED]), default=0)
        return longest + SPARE_TOKENS if 0 < longest <= LONGEST_ANSWER else None

    def _answer(self, way: Way, told: Told, most: int) -> None:
        room, asked = self.room_to_answer(), self.rows[:most]
        if room is None:
            return
        said = self.base.answers(f"{way.name}, answers", asked, way, room)
        texts = [self.base.chat.decode(ids) for ids in said]
        told.same = [same_answer(a.expected, text) for a, text in zip(asked, texts, strict=True)]
        if self.rule is not None:
            told.formed = [self.rule(text) for text in texts]

    def _probe(self, way: Way, told: Told, most: int) -> None:
        kept = [i for i, q in enumerate(self.questions[:most]) if not way.source or q.asked.source is not None]
        told.right = [None] * len(self.questions)
        if not kept:
            return
        asked = [self.questions[i].asked for i in kept]
        said = self.base.answers(f"{way.name}, questions", asked, way, PROBE_TOKENS)
        for i, ids in zip(kept, said, strict=True):
            told.right[i] = states(self.questions[i].probe.answer, self.base.chat.decode(ids))
        choosing = [self.questions[i] for i in kept if self.questions[i].probe.choices]
        if choosing:
            self._choose(way, told, choosing)
        else:
            told.sure = self._confidence(way, asked, said, [bool(told.right[i]) for i in kept])

    def _choose(self, way: Way, told: Told, questions: Sequence[Question]) -> None:
        rows: list[Encoded] = []
        owners: list[range] = []
        for q in questions:
            first = len(rows)
            rows += answer_rows(self.base.conversation(q.asked, way), q.probe.choices, self.base.chat)
            owners.append(range(first, len(rows)))
        draws: list[int | None] = [*sorted({q.asked.draw for q in questions})] if way.shots else [None]
        groups = [
            [i for q, own in zip(questions, owners, strict=True) if draw in (None, q.asked.draw) for i in own]
            for draw in draws
        ]
        losses = self.base.losses(f"{way.name}, choices", rows, groups)
        for q, own in zip(questions, owners, strict=True):
            pairs = [(float(losses[i].sum()), len(losses[i])) for i in own]
            told.picked.append(chosen(q.probe, pairs) == q.probe.answer)
            best, sure = belief([total for total, _ in pairs])
            told.sure.append((sure, q.probe.choices[best] == q.probe.answer))

    def _confidence(
        self, way: Way, asked: Sequence[Asked], said: Sequence[Sequence[int]], right: Sequence[bool]
    ) -> list[tuple[float, bool]]:
        """The mean probability of the tokens that it said itself; an empty answer has none."""
        spoken = [i for i, ids in enumerate(said) if ids]
        rows = [
            row
            for i in spoken
            for row in answer_rows(
                self.base.conversation(asked[i], way), [self.base.chat.decode(said[i])], self.base.chat
            )
        ]
        losses = self.base.losses(f"{way.name}, confidence", rows, [[n] for n in range(len(rows))])
        return [(exp(-float(x.mean())), right[i]) for i, x in zip(spoken, losses, strict=True)]


@dataclass(frozen=True)
class Facts:
    """Which tokens of each row's answer are names and numbers.

    Attributes:
        names: those that the question does not say.
        own: of these the row's own, which no example before it shows either.
    """

    names: Sequence[np.ndarray]
    own: Sequence[np.ndarray]


def facts_of(inquiry: Inquiry) -> Facts:
    """The names and numbers of the held-out answers, as far as they are scored."""
    chat, most = inquiry.base.chat, inquiry.most
    names = [fact_tokens(a, chat, most) for a in inquiry.rows]
    shown = zip(inquiry.rows, inquiry.shown, names, strict=True)
    return Facts(names, [fact_tokens(a, chat, most, text) & marks for a, text, marks in shown])


def total(losses: Losses, marks: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """(rows,) nats of each row, of the marked tokens where marks are given."""
    if marks is None:
        return np.array([x.sum() for x in losses])
    return np.array([x[mark].sum() for x, mark in zip(losses, marks, strict=True)])


def tokens(marks: Sequence[np.ndarray]) -> np.ndarray:
    """(rows,) marked tokens of each row."""
    return np.array([mark.sum() for mark in marks])


def condition(way: Way, inquiry: Inquiry, facts: Facts) -> Condition:
    """The measurements of one way of asking."""
    told = inquiry.told[way.name]
    found = _losses(told, inquiry, facts)
    greedy = f"greedy answers to {len(told.same)} held-out prompts"
    if told.formed:
        found["format"] = share_of(told.formed, f"{greedy}, checked by the job's `format`")
    if told.same:
        found["exact_match"] = share_of(told.same, f"{greedy}, equal to the row's own answer")
    right = [r for r in told.right if r is not None]
    if right:
        found["facts"] = share_of(right, f"greedy answers to {len(right)} questions that contain the expected words")
    other = [r for r, q in zip(told.right, inquiry.questions, strict=True) if q.otherwise and r is not None]
    if other:
        found["facts_paraphrased"] = share_of(other, "of these, questions in words that no training row uses")
    if told.picked:
        source = f"choice of lowest cross-entropy per token, {len(told.picked)} questions"
        found["facts_choice"] = share_of(told.picked, source)
    if told.sure:
        kind = "probability among the choices" if told.picked else "geometric mean probability of the tokens said"
        sure, ok = zip(*told.sure, strict=True)
        found["calibration_error"] = calibration(sure, ok, f"expected calibration error, {kind} against being right")
    return Condition(name=way.name, measurements=found)


def _losses(told: Told, inquiry: Inquiry, facts: Facts) -> dict[str, Measurement]:
    every = [np.ones(len(x), dtype=bool) for x in told.losses]
    rest = [~names for names in facts.names]
    share = tokens(facts.names).sum() / max(1, tokens(every).sum())
    said = f"cross-entropy of the right answers of {len(inquiry.rows)} held-out rows"
    kinds = {
        "loss": (every, said),
        "loss_names": (
            facts.names,
            f"{said}, names and numbers that the question does not say ({share:.1%} of tokens)",
        ),
        "loss_own": (facts.own, f"{said}, of these the ones that no example shows"),
        "loss_rest": (rest, f"{said}, all other tokens"),
    }
    found = {
        name: mean_loss(total(told.losses, marks), tokens(marks), source) for name, (marks, source) in kinds.items()
    }
    return {name: m for name, m in found.items() if m is not None}
