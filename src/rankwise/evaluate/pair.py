"""The tuned model and what it is held against, asked the same questions."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rankwise.evaluate.workload import Spent
from rankwise.model.generate import Said, say
from rankwise.model.likelihood import row_losses
from rankwise.records import Answer, Comparison, Reliability, Tendency
from rankwise.text.masks import Encoded
from rankwise.text.template import ChatText

Progress = Callable[[str, int, int], None]
Losses = list[tuple[float, int]]
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

    def both(self, what: str, ask: Callable[[Any, Progress], Any]) -> tuple[Any, Any]:
        """(base's, tuned's) outcome of `ask(model, progress)`."""
        with self.as_base() as base:
            before = ask(base, lambda _, done, total: self.progress(f"{what}, base", done, total))
        return before, ask(self.tuned, lambda _, done, total: self.progress(f"{what}, tuned", done, total))

    def answers(self, what: str, conversations: Sequence[Any], tokens: int) -> tuple[list[Said], list[Said]]:
        """What each says, greedily, in at most `tokens` tokens."""
        prompts = [self.chat.encode_prompt(c) for c in conversations]

        def ask(model: Any, progress: Progress) -> list[Said]:
            done = 0

            def on_batch(count: int) -> None:
                nonlocal done
                done += count
                progress(what, done, len(conversations))

            began = time.monotonic()
            found = say(model, self.chat, conversations, tokens, on_batch=on_batch)
            self.spent.answered(prompts, [said.ids for said in found], tokens, time.monotonic() - began)
            return found

        return self.both(what, ask)

    def texts(self, said: tuple[list[Said], list[Said]]) -> tuple[list[str], list[str]]:
        """Answers as text, base's and tuned's."""
        return each(lambda side: [self.chat.decode(one.ids) for one in side], said)

    def losses(self, what: str, rows: Sequence[Encoded], autocast: Any) -> tuple[Losses, Losses]:
        """(summed nats, labelled tokens) of each row for each model."""

        def ask(model: Any, progress: Progress) -> Losses:
            began = time.monotonic()
            found: Losses = []
            for i in range(0, len(rows), 16):
                found += row_losses(model, rows[i : i + 16], autocast)
                progress(what, len(found), len(rows))
            self.spent.scored(rows, time.monotonic() - began)
            return found

        return self.both(what, ask)
