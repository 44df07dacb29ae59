"""All that one model is asked in one way, written out before a model is loaded: the same items whatever the way."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from rankwise.errors import DataError
from rankwise.evaluate.asking import first_labels
from rankwise.evaluate.exam import Exam
from rankwise.evaluate.knowledge import answer_rows
from rankwise.evaluate.prompts import Messages
from rankwise.evaluate.ways import Asking, Plain
from rankwise.evaluate.workload import PROBE_TOKENS, SPARE_TOKENS, wanted_tokens
from rankwise.text.formats import Row
from rankwise.text.masks import IGNORE, Encoded, encode_rows
from rankwise.text.probes import Probe
from rankwise.text.template import ChatText

Item = TypeVar("Item")


@dataclass(frozen=True)
class Written(Generic[Item]):
    """Items as they are put to the model.

    Attributes:
        changed: stands each after examples or a source? False: it is put plainly.
    """

    items: Sequence[Item]
    changed: Sequence[bool]

    def numbers(self, changed: bool) -> list[int]:
        """Of the items that are (or are not) changed."""
        return [i for i, other in enumerate(self.changed) if other == changed]


@dataclass(frozen=True)
class Paper:
    """What a model is asked.

    Attributes:
        exam: with no more items than are asked.
        loss_rows: held-out rows whose answers are scored, labelled as in training.
        replies: held-out prompts that are answered, in at most `room` tokens.
        questions: every wording of the probes.
        choosing: the probes with choices; choices: of each of these, one row a choice.
    """

    exam: Exam
    chat: ChatText
    asking: Asking
    loss_rows: Written[Encoded]
    replies: Written[Messages]
    room: int
    questions: Written[Messages]
    choosing: Sequence[Probe]
    choices: Written[list[Encoded]]
    notes: tuple[str, ...]

    @property
    def plain(self) -> bool:
        return isinstance(self.asking, Plain)


def write_paper(exam: Exam, chat: ChatText, asking: Asking, positions: int | None, most: int | None = None) -> Paper:
    """Put every item into the words of `asking`.

    Args:
        positions: of the model; an item that would not fit after examples or a source is put plainly, and counted.
        most: held-out rows, held-out prompts, probes (with all their wordings) and general rows at most, each drawn at
            random, the same ones for every arm; None: as many as `rankwise eval` asks.

    Raises:
        DataError: there is no held-out row.
    """
    asked = shortened(exam, most)
    if not asked.data.validation:
        raise DataError(
            "data.validation",
            None,
            "there is no held-out row to compare models on",
            expected="at least one row that is not longer than train.max_length",
            fix="add rows, or allow longer ones by train.max_length",
        )
    pen = _Pen(chat, asking, positions)
    room = max(wanted_tokens(asked.held_out, chat), default=0) + SPARE_TOKENS
    choosing = [p for p in asked.probes if p.choices]
    return Paper(
        exam=asked,
        chat=chat,
        asking=asking,
        loss_rows=pen.rows(list(asked.data.validation), asked.data.held_out),
        replies=pen.prompts([e.messages for e in asked.held_out], room),
        room=room,
        questions=pen.prompts([w.messages for w in asked.wordings], PROBE_TOKENS),
        choosing=choosing,
        choices=pen.choices(choosing),
        notes=(*asking.notes, *_fewer(exam, asked), *pen.notes()),
    )


def shortened(exam: Exam, most: int | None) -> Exam:
    """The exam with at most so many items of each kind, in the given order: the first of a shuffle, so that fewer are
    always among more.
    """
    if most is None:
        return exam
    probes = set(_drawn("probes", len(exam.probes), most))
    kept = [i for i, w in enumerate(exam.wordings) if w.probe in probes]
    number = {old: new for new, old in enumerate(sorted(probes))}
    data = exam.data
    return replace(
        exam,
        data=replace(
            data,
            validation=[data.validation[i] for i in _drawn("rows", len(data.validation), most)],
            general=[data.general[i] for i in _drawn("general", len(data.general), most)],
        ),
        held_out=[exam.held_out[i] for i in _drawn("prompts", len(exam.held_out), most)],
        probes=[exam.probes[i] for i in sorted(probes)],
        wordings=[replace(exam.wordings[i], probe=number[exam.wordings[i].probe]) for i in kept],
        seen=[exam.seen[i] for i in kept],
    )


def _drawn(kind: str, count: int, most: int) -> list[int]:
    """Numbers below `count`, rising, the same ones each time."""
    order = list(range(count))
    random.Random(kind).shuffle(order)
    return sorted(order[:most])


def _fewer(exam: Exam, asked: Exam) -> list[str]:
    pairs = {
        "held-out rows": (exam.data.validation, asked.data.validation),
        "held-out prompts": (exam.held_out, asked.held_out),
        "probes": (exam.probes, asked.probes),
        "general rows": (exam.data.general, asked.data.general),
    }
    fewer = [f"{len(b)} of {len(a)} {name}" for name, (a, b) in pairs.items() if len(b) < len(a)]
    return [f"asked were {', '.join(fewer)}, drawn at random, the same ones of every arm"] if fewer else []


@dataclass
class _Pen:
    """Writes items in one way, and counts those that stay plain."""

    chat: ChatText
    asking: Asking
    positions: int | None
    too_long: int = 0
    unlike: int = 0

    def prompts(self, conversations: Sequence[Sequence[Mapping[str, Any]]], room: int) -> Written[Messages]:
        put = [self._conversation(messages, room) for messages in conversations]
        items = [p if p is not None else tuple(m) for p, m in zip(put, conversations, strict=True)]
        return Written(items, [p is not None for p in put])

    def choices(self, probes: Sequence[Probe]) -> Written[list[Encoded]]:
        found, changed = [], []
        for probe in probes:
            messages = [{"role": "user", "content": probe.question}]
            room = max(len(self.chat.encode(choice)) for choice in probe.choices)
            put = self._conversation(messages, room)
            found.append(answer_rows(put or messages, probe.choices, self.chat, probe.line))
            changed.append(put is not None)
        return Written(found, changed)

    def rows(self, rows: Sequence[Encoded], behind: Sequence[Row]) -> Written[Encoded]:
        """Rows of training's own making, each with the beginning of its conversation changed; what is labelled stays
        the same to the token, or else the row is put as it is.
        """
        if isinstance(self.asking, Plain):
            return Written(rows, [False] * len(rows))
        known = {(row.path, row.line): row for row in behind}
        put = [self._row(row, known.get((row.path, row.line))) for row in rows]
        return Written([p or row for p, row in zip(put, rows, strict=True)], [p is not None for p in put])

    def notes(self) -> list[str]:
        found = []
        if self.too_long:
            found.append(f"{self.too_long} prompts left no room for examples or a source and were put plainly")
        if self.unlike:
            found.append(f"{self.unlike} held-out rows begin with no question and were read as they are")
        return found

    def _conversation(self, messages: Sequence[Mapping[str, Any]], room: int) -> Messages | None:
        """None: it stays as it is."""
        put = self.asking.conversation(messages)
        if put == tuple(messages):
            return None
        if self._fits(len(self.chat.encode_prompt(put)) + room):
            return put
        self.too_long += 1
        return None

    def _row(self, row: Encoded, behind: Row | None) -> Encoded | None:
        turn = _first_answer(behind)
        if behind is None or not turn:
            self.unlike += 1
            return None
        question = behind.messages[:turn]
        put = self.asking.conversation(question)
        if put == question:
            return None
        texts = encode_rows(replace(behind, messages=(*map(dict, put), *behind.messages[turn:])), self.chat)
        wanted = _learned(row)
        cut = [first_labels(text, len(wanted)) for text in texts]
        alike = next((text for text in cut if _learned(text) == wanted), None)
        if alike is None:
            self.unlike += 1
            return None
        if self._fits(len(alike.ids)):
            return alike
        self.too_long += 1
        return None

    def _fits(self, tokens: int) -> bool:
        return self.positions is None or tokens <= self.positions


def _first_answer(row: Row | None) -> int | None:
    messages = row.messages if row else ()
    return next((i for i, m in enumerate(messages) if m["role"] == "assistant"), None)


def _learned(row: Encoded) -> list[int]:
    return [label for label in row.labels[1:] if label != IGNORE]
