"""How much an evaluation will ask of the models, known before one of them is loaded, and how much it did ask."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rankwise.evaluate.knowledge import choice_rows
from rankwise.evaluate.style import Exchange, exchanges
from rankwise.model.generate import BATCH, batches
from rankwise.model.prefix import first_label, read_once
from rankwise.records.ledger import AnswerBatch, EvaluationWork
from rankwise.text.dataset import Dataset
from rankwise.text.masks import IGNORE, Encoded
from rankwise.text.probes import Probe, wordings
from rankwise.text.template import ChatText

# Rows that are answered in full; generation is the dearest part of an evaluation.
MOST_ROWS = 64
# Tokens of an answer to a closed-book question: a short one, and a little room to go wrong in.
PROBE_TOKENS = 24
# Tokens that an answer may be longer than the longest expected one.
SPARE_TOKENS = 16


@dataclass
class Spent:
    """What an evaluation has done so far, and the seconds of its two parts; `elsewhere_seconds` were spent waiting for
    a judge, which no prediction is about.
    """

    forward_seconds: float = 0.0
    generation_seconds: float = 0.0
    elsewhere_seconds: float = 0.0
    rows: list[Encoded] = field(default_factory=list)
    batches: list[AnswerBatch] = field(default_factory=list)

    def scored(self, rows: Sequence[Encoded], seconds: float) -> None:
        """One model found likelihoods of `rows`."""
        self.forward_seconds += seconds
        self.rows += rows

    def answered(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], room: int, seconds: float
    ) -> None:
        """One model gave `answers`, each of at most `room` tokens; a stop token is a step, too."""
        self.generation_seconds += seconds
        self.batches += answering(prompts, room, lambda rows, most: min(most, 1 + max(len(answers[i]) for i in rows)))

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Time inside is not this machine's."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.elsewhere_seconds += time.monotonic() - began

    def work(self) -> EvaluationWork:
        return EvaluationWork(**likelihoods(self.rows), batches=tuple(self.batches))


def expected_work(data: Dataset, probes: Sequence[Probe], chat: ChatText, positions: int | None) -> EvaluationWork:
    """What `evaluate` will ask: the base answers until it is cut off, the tuned model as long as the row's answer."""
    rows = [*data.validation, *data.general, *(row for p in probes if p.choices for row in choice_rows(p, chat))]
    done: list[AnswerBatch] = []
    asked = exchanges(data.held_out)[:MOST_ROWS]
    if asked:
        prompts = [chat.encode_prompt(e.messages) for e in asked]
        wanted = wanted_tokens(asked, chat)
        room = max(wanted) + SPARE_TOKENS
        done += answering(prompts, room, lambda rows, most: most, positions)
        done += answering(prompts, room, lambda rows, most: min(most, 1 + max(wanted[i] for i in rows)), positions)
    if probes:
        prompts = [chat.encode_prompt(w.messages) for w in wordings(probes)]
        done += 2 * answering(prompts, PROBE_TOKENS, lambda rows, most: most, positions)
    return EvaluationWork(**likelihoods([*rows, *rows]), batches=tuple(done))


def read_of(rows: Sequence[Encoded]) -> list[Encoded]:
    """What is read of rows that begin alike: their beginning once, then the rest of each."""
    shared = read_once([row.ids[: first_label(row)] for row in rows])
    if not shared:
        return list(rows)
    rest = [Encoded(row.ids[shared:], row.labels[shared:], row.line, row.path) for row in rows]
    return [unlabelled(rows[0].ids[:shared]), *rest]


def unlabelled(ids: Sequence[int]) -> Encoded:
    """Tokens that are only read."""
    return Encoded(tuple(ids), (IGNORE,) * len(ids), 0)


def wanted_tokens(asked: Sequence[Exchange], chat: ChatText) -> list[int]:
    """Of each row's own answer."""
    return [len(chat.encode(e.expected)) for e in asked]


def likelihoods(rows: Sequence[Encoded]) -> dict[str, int]:
    """Fields of EvaluationWork."""
    return {
        "rows": len(rows),
        "tokens": sum(len(row.ids) for row in rows),
        "labelled": sum(label != IGNORE for row in rows for label in row.labels[1:]),
    }


def answering(
    prompts: Sequence[Sequence[int]],
    room: int,
    steps: Callable[[Sequence[int], int], int],
    positions: int | None = None,
) -> list[AnswerBatch]:
    """The batches that `prompts` are answered in; `steps` says (row numbers, steps allowed) -> steps taken."""
    return [
        AnswerBatch(rows=len(rows), prompt=max(len(prompts[i]) for i in rows), steps=steps(rows, most))
        for most, rows in batches(prompts, room, positions, BATCH)
    ]
