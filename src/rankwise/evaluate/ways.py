"""The ways in which an arm of a comparison is asked: plainly, after examples, and with training rows to look things
up in. Every item is asked in the same way.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rankwise.errors import UsageError
from rankwise.evaluate.asking import short_source
from rankwise.evaluate.prompts import (
    SOURCES,
    Messages,
    draw_examples,
    room_of,
    shots_that_fit,
    with_examples,
    with_source,
)
from rankwise.evaluate.retrieval import Index
from rankwise.evaluate.style import Exchange, exchanges
from rankwise.records.bakeoff import ArmKind
from rankwise.text.formats import Row
from rankwise.text.template import ChatText


class Asking(Protocol):
    """A way to ask.

    Attributes:
        alike: conversations begin with the same turns, which are worth reading once.
        notes: what a reader should know of it.
    """

    @property
    def alike(self) -> bool: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    def conversation(self, messages: Sequence[Mapping[str, Any]]) -> Messages:
        """What is put to the model in place of `messages`, which end with the question."""
        ...


@dataclass(frozen=True)
class Plain:
    """The question alone."""

    alike: bool = False
    notes: tuple[str, ...] = ()

    def conversation(self, messages: Sequence[Mapping[str, Any]]) -> Messages:
        return tuple(messages)


@dataclass(frozen=True)
class FewShot:
    """After examples, the same ones before every question."""

    examples: tuple[Exchange, ...]
    notes: tuple[str, ...]
    alike: bool = True

    def conversation(self, messages: Sequence[Mapping[str, Any]]) -> Messages:
        return with_examples(messages, self.examples)


@dataclass(frozen=True)
class Retrieval:
    """With the training rows nearest to the question before it; a question that shares no word with any is asked
    plainly.

    Attributes:
        texts: the training rows; `index` finds them.
        room: tokens of all that stand before a question.
    """

    texts: Sequence[str]
    index: Index
    chat: ChatText
    room: int
    notes: tuple[str, ...]
    alike: bool = False

    def conversation(self, messages: Sequence[Mapping[str, Any]]) -> Messages:
        near = self.index.nearest(str(messages[-1]["content"]), SOURCES)
        if not near:
            return tuple(messages)
        return with_source(messages, short_source([self.texts[i] for i in near], self.room, self.chat))


def asking_of(kind: ArmKind, training: Iterable[Row], chat: ChatText, positions: int | None, seed: int) -> Asking:
    """How an arm of this kind is asked. The same seed draws the same examples, whatever the seed of a run.

    Args:
        training: rows that are trained on; gone through for few-shot prompting and retrieval alone.
        positions: of the model, which bound how much stands in a prompt; None: unknown.

    Raises:
        UsageError: there is nothing to take examples from or to look things up in.
    """
    if kind == "fewshot":
        return _few_shot(training, chat, positions, seed)
    if kind == "retrieval":
        return _retrieval(training, chat, positions)
    return Plain()


def _few_shot(training: Iterable[Row], chat: ChatText, positions: int | None, seed: int) -> FewShot:
    given = [(row, found[0]) for row in training if (found := exchanges([row]))]
    if not given:
        raise UsageError(
            "fewshot: no training row is a question with its answer, so there are no examples to show",
            expected="conversations (messages, alpaca, sharegpt, prompt/completion) in data.train",
            fix="leave fewshot out of --methods",
        )
    drawn = [given[i] for i in draw_examples(len(given), seed, draws=1)[0]]
    room = room_of(positions)
    count = max(shots_that_fit([[example for _, example in drawn]], chat, room), default=0)
    if count == 0:
        raise UsageError(
            f"fewshot: not even one example fits into the {room.examples:,} tokens that are there for examples",
            expected="a model with more positions, or shorter training rows",
            fix="leave fewshot out of --methods",
        )
    rows = ", ".join(f"{row.path.name}:{row.line}" for row, _ in drawn[:count])
    note = f"few-shot: every question stands after the same {count} training rows ({rows}), drawn with seed {seed}"
    return FewShot(tuple(example for _, example in drawn[:count]), (note,))


def _retrieval(training: Iterable[Row], chat: ChatText, positions: int | None) -> Retrieval:
    texts = training_texts(training)
    if not texts:
        raise UsageError(
            "retrieval: there is no training row to look anything up in",
            expected="rows in data.train that hold what is asked",
            fix="leave retrieval out of --methods",
        )
    room = room_of(positions).source
    note = (
        f"retrieval: the {SOURCES} of {len(texts):,} training rows nearest to a question by BM25 stand before "
        f"it, in at most {room:,} tokens"
    )
    return Retrieval(texts, Index(texts), chat, room, (note,))


def training_texts(training: Iterable[Row]) -> list[str]:
    """What a row says, without its system turn: a document, or all turns of a conversation."""
    return [
        row.text
        if row.text is not None
        else "\n".join(str(m["content"]) for m in row.messages if m["role"] != "system" and m.get("content"))
        for row in training
    ]
