"""Which supervised tokens of a row are names and numbers, and how many of each kind a model would have written."""

from collections.abc import Sequence
from typing import NamedTuple

from rankwise.evaluate.spans import Span, inside, new_facts
from rankwise.text.masks import IGNORE, Encoded
from rankwise.text.template import ChatText


class Counts(NamedTuple):
    """Supervised tokens of one or more rows, and those of them whose likeliest token is the right one."""

    facts: int = 0
    facts_right: int = 0
    others: int = 0
    others_right: int = 0

    @property
    def fact_accuracy(self) -> float | None:
        return self.facts_right / self.facts if self.facts else None

    @property
    def other_accuracy(self) -> float | None:
        return self.others_right / self.others if self.others else None


def fact_tokens(row: Encoded, chat: ChatText) -> bytes | None:
    """1 or 0 for each supervised token that something comes before: does it belong to a name or number that neither the
    context nor the answer so far has said? None where the row's ids are not what its text is encoded as (a row that
    was cut, or a tokenizer that does not give text back), so that nobody can tell.
    """
    text = chat.decode(row.ids, skip_special_tokens=False)
    ids, offsets = chat.offsets(text)
    if tuple(ids) != tuple(row.ids):
        return None
    answers = [(offsets[first][0], offsets[last][1]) for first, last in _answers(row.labels)]
    spans = [span for start, end in answers for span in _new_in(text, start, end)]
    flags = inside(offsets, spans)
    learned = (i for i in range(1, len(ids)) if row.labels[i] != IGNORE)
    return bytes(flags[i] and ids[i] not in chat.stop_token_ids for i in learned)


def _answers(labels: Sequence[int]) -> list[tuple[int, int]]:
    """First and last place of each unbroken run of supervised tokens."""
    learned = [False, *(label != IGNORE for label in labels), False]
    begins = [i - 1 for i in range(1, len(learned)) if learned[i] and not learned[i - 1]]
    ends = [i - 2 for i in range(1, len(learned)) if learned[i - 1] and not learned[i]]
    return list(zip(begins, ends, strict=True))


def _new_in(text: str, start: int, end: int) -> list[Span]:
    return [(start + a, start + b) for a, b in new_facts(text[start:end], text[:start])]


def counts(flags: Sequence[int] | None, right: Sequence[bool]) -> Counts:
    """Of one row; nothing where nobody can tell which tokens are facts.

    Args:
        right: for each supervised token, in order: is it the likeliest one?
    """
    if flags is None:
        return Counts()
    facts = [hit for hit, fact in zip(right, flags, strict=True) if fact]
    others = [hit for hit, fact in zip(right, flags, strict=True) if not fact]
    return Counts(len(facts), sum(facts), len(others), sum(others))


def total(parts: Sequence[Counts]) -> Counts:
    return Counts(*(sum(column) for column in zip(*parts, strict=True))) if parts else Counts()
