"""The ways in which a base is asked: alone, after examples, and with the answer's source before the question."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.evaluate.retrieval import Index
from rankwise.evaluate.style import Exchange
from rankwise.text.template import ChatText

SHOTS = (1, 4, 8)
# Random draws of examples: a row is asked after one of them, so that no single lucky draw decides.
DRAWS = 4
# Training rows that stand in the prompt as the source of an answer.
SOURCES = 3
POSITIONS = 6144  # tokens of a prompt at most, whatever the model allows: a bound on time
SOURCE_WORDS = "Answer with the help of this reference.\n\n{source}\n\n{question}"

Messages = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Room:
    """How the positions of a model are shared out, in tokens."""

    examples: int
    question: int
    source: int
    answer: int


def room_of(positions: int | None) -> Room:
    """An eighth of the positions for an answer (at most 256) and for its source (at most 512), a quarter for the
    question (at most 1,024), the rest for examples.
    """
    limit = min(positions or POSITIONS, POSITIONS)
    answer, source, question = min(256, limit // 8), min(512, limit // 8), min(1024, limit // 4)
    return Room(limit - answer - source - question, question, source, answer)


def draw_examples(rows: int, seed: int, draws: int = DRAWS) -> list[list[int]]:
    """Numbers of training rows drawn at random; a prompt takes the first k of a draw. A seed gives the same ones."""
    most = min(max(SHOTS), rows)
    return [random.Random(f"{seed} {number}").sample(range(rows), most) for number in range(draws)]


def shots_that_fit(draws: Sequence[Sequence[Exchange]], chat: ChatText, room: Room) -> tuple[int, ...]:
    """Those of SHOTS for which every draw has the rows and the room."""

    def fits(draw: Sequence[Exchange], count: int) -> bool:
        return len(draw) >= count and len(chat.encode_prompt(with_examples(_EMPTY, draw[:count]))) <= room.examples

    return tuple(count for count in SHOTS if all(fits(draw, count) for draw in draws))


def cut(text: str, most: int, chat: ChatText) -> str:
    """The first `most` tokens of a text."""
    ids = chat.encode(text)
    return text if len(ids) <= most else chat.decode(ids[:most])


_EMPTY: Messages = ({"role": "user", "content": "-"},)


def with_examples(messages: Sequence[Mapping[str, Any]], examples: Sequence[Exchange]) -> Messages:
    """The same conversation after examples that were asked and answered; its own system turn stays first."""
    first = next((i for i, m in enumerate(messages) if m["role"] != "system"), len(messages))
    turns = [turn for example in examples for turn in (_asked(example), _answered(example))]
    return (*messages[:first], *turns, *messages[first:])


def with_source(messages: Sequence[Mapping[str, Any]], source: str) -> Messages:
    """The same conversation with a text to look the answer up in, put before the last question."""
    last = messages[-1]
    told = SOURCE_WORDS.format(source=source, question=last["content"])
    return (*messages[:-1], {**last, "content": told})


def _asked(example: Exchange) -> dict[str, Any]:
    return {"role": "user", "content": example.prompt}


def _answered(example: Exchange) -> dict[str, Any]:
    return {"role": "assistant", "content": example.expected, "weight": 0}


class Library:
    """The training rows as texts in which the source of an answer is looked up."""

    def __init__(self, training: Sequence[Exchange]):
        self.texts = [f"{row.prompt}\n{row.expected}" for row in training]
        self._index = Index(self.texts)

    def nearest(self, question: str, most: int) -> list[int]:
        """Numbers of the training rows that share words with a question, best first."""
        return self._index.nearest(question, most)


def assign(near: Sequence[Sequence[int]], draws: Sequence[Sequence[int]]) -> list[int]:
    """The draw that each question is asked after: one with the fewest of the rows `near` to it, because examples shall
    show the manner of an answer and not its facts; among those the one with the fewest questions so far.
    """
    load = [0] * len(draws)
    found = []
    for rows in near:
        held = [len(set(rows) & set(draw)) for draw in draws]
        best = min(range(len(draws)), key=lambda d: (held[d], load[d], d))
        load[best] += 1
        found.append(best)
    return found
