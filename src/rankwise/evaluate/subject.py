"""One model that is asked: greedy answers and likelihoods."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rankwise.evaluate.workload import Spent, read_of, unlabelled
from rankwise.model.generate import Said, say
from rankwise.model.likelihood import row_losses
from rankwise.model.prefix import read_once, token_losses
from rankwise.text.masks import Encoded
from rankwise.text.template import ChatText

Progress = Callable[[str, int, int], None]
Losses = list[tuple[float, int]]
ROWS = 16  # that are scored between two words of progress


@dataclass
class Subject:
    """A model with its text.

    Attributes:
        progress: told (what, done, total).
        spent: what was asked, and how long it took.
    """

    chat: ChatText
    model: Any
    progress: Progress
    spent: Spent = field(default_factory=Spent)

    def answers(self, what: str, conversations: Sequence[Any], tokens: int, *, alike: bool = False) -> list[Said]:
        """What it says, greedily, in at most `tokens` tokens.

        alike: the conversations begin with the same examples, which are read once.
        """
        done = 0

        def on_batch(count: int) -> None:
            nonlocal done
            done += count
            self.progress(what, done, len(conversations))

        prompts = [self.chat.encode_prompt(c) for c in conversations]
        began = time.monotonic()
        found = say(self.model, self.chat, conversations, tokens, on_batch=on_batch, share_prefix=alike)
        seconds, shared = time.monotonic() - began, read_once(prompts) if alike else 0
        if shared:
            self.spent.scored([unlabelled(prompts[0][:shared])], 0.0)
        self.spent.answered([p[shared:] for p in prompts], [said.ids for said in found], tokens, seconds)
        return found

    def losses(self, what: str, rows: Sequence[Encoded], autocast: Any) -> Losses:
        """(summed nats, labelled tokens) of each row, one by one."""
        began = time.monotonic()
        found: Losses = []
        for i in range(0, len(rows), ROWS):
            found += row_losses(self.model, rows[i : i + ROWS], autocast)
            self.progress(what, len(found), len(rows))
        self.spent.scored(rows, time.monotonic() - began)
        return found

    def grouped(self, what: str, groups: Sequence[Sequence[Encoded]], autocast: Any) -> list[Losses]:
        """As `losses`, of groups of rows that begin alike: what those of a group share is read once. In fp32 the same
        numbers.
        """
        done, total = 0, sum(map(len, groups))

        def on_batch(count: int) -> None:
            nonlocal done
            done += count
            self.progress(what, done, total)

        began = time.monotonic()
        found = [
            [(sum(losses), len(losses)) for losses in token_losses(self.model, rows, autocast, on_batch)]
            for rows in groups
        ]
        self.spent.scored([row for rows in groups for row in read_of(rows)], time.monotonic() - began)
        return found
