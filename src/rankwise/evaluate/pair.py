"""The tuned model and what it is held against, asked the same questions."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rankwise.evaluate.subject import Losses, Progress, Subject
from rankwise.evaluate.workload import Spent
from rankwise.model.generate import Said
from rankwise.records import Answer, Comparison, Reliability, Tendency
from rankwise.text.masks import Encoded
from rankwise.text.template import ChatText

Given = TypeVar("Given")
Made = TypeVar("Made")


def each(make: Callable[[Given], Made], sides: tuple[Given, Given]) -> tuple[Made, Made]:
    """The same of the base's and of the tuned model's."""
    return make(sides[0]), make(sides[1])


@dataclass
class Found:
    """What a part of an evaluation found."""

    comparisons: list[Comparison] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    reliability: list[Reliability] = field(default_factory=list)
    tendencies: list[Tendency] = field(default_factory=list)


@dataclass
class Pair:
    """Two models that may be one: `as_base` switches to the untouched base (or gives another model) and back.

    Attributes:
        tuned: the trained model.
        as_base: context manager that yields what it is held against.
        progress: told (what, done, total).
        notes: what was not measured, and what one should know of what was.
        spent: what was asked, and how long it took.
    """

    chat: ChatText
    tuned: Any
    as_base: Callable[[], AbstractContextManager[Any]]
    progress: Progress
    notes: list[str] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)

    def both(self, ask: Callable[[Subject], Made]) -> tuple[Made, Made]:
        """(base's, tuned's) outcome of `ask`."""
        with self.as_base() as base:
            before = ask(self._subject(base, "base"))
        return before, ask(self._subject(self.tuned, "tuned"))

    def _subject(self, model: Any, name: str) -> Subject:
        told = self.progress
        return Subject(
            self.chat, model, lambda what, done, total: told(f"{what}, {name}", done, total), spent=self.spent
        )

    def answers(self, what: str, conversations: Sequence[Any], tokens: int) -> tuple[list[Said], list[Said]]:
        """What each says, greedily, in at most `tokens` tokens."""
        return self.both(lambda subject: subject.answers(what, conversations, tokens))

    def texts(self, said: tuple[list[Said], list[Said]]) -> tuple[list[str], list[str]]:
        """Answers as text, base's and tuned's."""
        return each(lambda side: [self.chat.decode(one.ids) for one in side], said)

    def losses(self, what: str, rows: Sequence[Encoded], autocast: Any) -> tuple[Losses, Losses]:
        """(summed nats, labelled tokens) of each row for each model."""
        return self.both(lambda subject: subject.losses(what, rows, autocast))
