"""Held-out rows and probes put to a base under each condition: losses by token, answers, and the choice it believes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.evaluate.prompts import Messages, cut, with_examples, with_source
from rankwise.evaluate.spans import inside, new_facts
from rankwise.evaluate.style import Exchange
from rankwise.model.generate import answer_ids
from rankwise.model.likelihood import Autocast
from rankwise.model.prefix import token_losses
from rankwise.text.formats import Row
from rankwise.text.masks import IGNORE, Encoded, encode_row
from rankwise.text.template import ChatText

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Asked:
    """A question put to the base.

    Attributes:
        messages: the conversation that ends with the question.
        expected: the right answer.
        draw: number of the draw of examples that it is asked after.
        source: text that holds the answer; None where none was found.
    """

    messages: Messages
    expected: str
    draw: int
    source: str | None


@dataclass(frozen=True)
class Way:
    """How questions are asked: after `shots` examples, with the answer's source or without."""

    name: str
    shots: int
    source: bool = False


@dataclass
class Base:
    """The untouched model with its text.

    Attributes:
        draws: the examples, one list for each draw.
        progress: told (what, done, total).
    """

    model: Any
    chat: ChatText
    draws: Sequence[Sequence[Exchange]]
    progress: Progress
    autocast: Autocast = None

    def conversation(self, asked: Asked, way: Way) -> Messages:
        messages = asked.messages
        if way.source:
            assert asked.source is not None
            messages = with_source(messages, asked.source)
        return with_examples(messages, self.draws[asked.draw][: way.shots])

    def answers(self, what: str, asked: Sequence[Asked], way: Way, tokens: int) -> list[list[int]]:
        """Greedy answers as token ids, in order."""
        said: list[list[int]] = [[] for _ in asked]
        done = 0

        def on_batch(count: int) -> None:
            nonlocal done
            done += count
            self.progress(what, done, len(asked))

        for rows in by_draw(asked, way):
            conversations = [self.conversation(asked[i], way) for i in rows]
            found = answer_ids(
                self.model, self.chat, conversations, tokens, on_batch=on_batch, share_prefix=way.shots > 0
            )
            for i, ids in zip(rows, found, strict=True):
                said[i] = ids
        return said

    def losses(self, what: str, rows: Sequence[Encoded], groups: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Nats of each labelled token of each row, in order; rows of a group begin alike."""
        found: list[np.ndarray] = [np.zeros(0)] * len(rows)
        done = 0

        def on_batch(count: int) -> None:
            nonlocal done
            done += count
            self.progress(what, done, len(rows))

        for group in groups:
            for i, losses in zip(
                group, token_losses(self.model, [rows[i] for i in group], self.autocast, on_batch), strict=True
            ):
                found[i] = np.array(losses)
        return found

    def answer_losses(self, what: str, asked: Sequence[Asked], way: Way, most: int) -> list[np.ndarray]:
        """Nats of each of the first `most` tokens of each right answer, stop token included."""
        rows = [first_labels(self.encoded(a, way), most) for a in asked]
        return self.losses(what, rows, by_draw(asked, way))

    def encoded(self, asked: Asked, way: Way) -> Encoded:
        """The conversation with the right answer, which alone is labelled."""
        return encode_answer(self.conversation(asked, way), asked.expected, self.chat)


def by_draw(asked: Sequence[Asked], way: Way) -> list[list[int]]:
    """Numbers of the questions that are asked after the same examples."""
    if not way.shots:
        return [list(range(len(asked)))]
    return [rows for d in sorted({a.draw for a in asked}) if (rows := [i for i, a in enumerate(asked) if a.draw == d])]


def encode_answer(messages: Messages, answer: str, chat: ChatText) -> Encoded:
    turns = (*(dict(m) for m in messages), {"role": "assistant", "content": answer})
    return encode_row(Row(turns, None, 1, Path("data")), chat)


def first_labels(row: Encoded, most: int) -> Encoded:
    """The row up to its `most`-th labelled token."""
    labelled = [i for i, label in enumerate(row.labels) if label != IGNORE]
    end = labelled[most - 1] + 1 if len(labelled) > most else len(row.ids)
    return Encoded(row.ids[:end], row.labels[:end], row.line, row.path)


def fact_tokens(asked: Asked, chat: ChatText, most: int, shown: str = "") -> np.ndarray:
    """For each of the first `most` labelled tokens of the answer: does it belong to a name or number that neither the
    question nor the answer so far has said?
    """
    messages = [*(dict(m) for m in asked.messages), {"role": "assistant", "content": asked.expected}]
    full = chat.render(messages)
    start = max(full.find(asked.expected.strip(), len(chat.render(messages[:-1], add_generation_prompt=True))), 0)
    said = " ".join([*(str(m["content"]) for m in asked.messages), shown])
    spans = [(start + a, start + b) for a, b in new_facts(full[start : start + len(asked.expected.strip())], said)]
    _, offsets = chat.offsets(full)
    labels = encode_answer(asked.messages, asked.expected, chat).labels
    flags = [fact for fact, label in zip(inside(offsets, spans), labels, strict=True) if label != IGNORE]
    return np.array(flags[:most])


def short_source(texts: Sequence[str], most: int, chat: ChatText) -> str:
    """Several texts as one, each with its share of `most` tokens."""
    return "\n\n".join(cut(text, most // len(texts), chat) for text in texts)
