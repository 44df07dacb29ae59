"""The format task: a list in words is written as JSON with its length. The words are known to any base; only the form
is new.

Rows are plain text of some 32 tokens, without a chat template, so that an arm takes a minute or two.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.text.masks import IGNORE, Encoded
from rankwise.text.template import ChatText

WORDS = """
    apple bread chair desk engine flower garden hammer island jacket kitchen ladder mirror needle ocean pencil queen
    river shoe table umbrella village window yellow zebra anchor basket candle dragon eagle forest guitar house iron
    jungle kettle lemon mountain nest orange piano rabbit salt tiger uncle valley whale bottle cloud doctor egg farm
    glass honey ice juice key lamp moon nose onion paper rain sugar tree violin water bridge camel dance earth fish
    gold horse ink king leaf milk night oil pepper ring snow train voice wind bell coin door fire grass hat knife
    line map net pond road silver star town wall butter castle drum feather grape hill lake metal nut park rope sand
    tooth
""".split()  # noqa: SIM905
FEWEST, MOST = 2, 4  # words of a list
ROOM = 40  # new tokens that an answer may have; the longest here has about 30


@dataclass(frozen=True)
class Item:
    """One list, as asked and as it should be answered."""

    asked: str
    answer: str


def items(count: int, seed: int) -> list[Item]:
    """Different lists; the same seed draws the same."""
    draw = random.Random(f"lists-{seed}")
    found: dict[str, Item] = {}
    while len(found) < count:
        words = draw.sample(WORDS, draw.randint(FEWEST, MOST))
        said = json.dumps({"count": len(words), "items": words})
        item = Item(f"List: {', '.join(words)}\nJSON:", f" {said}")
        found.setdefault(item.asked, item)
    return list(found.values())


@dataclass(frozen=True)
class Split:
    """Disjoint lists: to train on, to choose a rate on, and to be looked at once."""

    train: list[Item]
    dev: list[Item]
    test: list[Item]

    @classmethod
    def of(cls, seed: int, train: int, dev: int, test: int) -> "Split":
        all_of_them = items(train + dev + test, seed)
        return cls(all_of_them[:train], all_of_them[train : train + dev], all_of_them[train + dev :])


class Plain(ChatText):
    """A tokenizer whose prompts are the text alone: this task has no conversation."""

    def encode_prompt(self, messages: Sequence[Mapping[str, Any]], given: Mapping[str, Any] | None = None) -> list[int]:
        return self.encode(str(messages[-1]["content"]))


def encoded(some: Sequence[Item], text: ChatText) -> list[Encoded]:
    """Ids of list and answer, labels on the answer and on the token that ends it."""
    rows = []
    for number, item in enumerate(some, 1):
        prompt, answer = text.encode(item.asked), [*text.encode(item.answer), text.eos_token_id]
        rows.append(Encoded((*prompt, *answer), (*[IGNORE] * len(prompt), *answer), number))
    return rows


def conversations(some: Sequence[Item]) -> list[list[dict[str, str]]]:
    """As `answer` takes them."""
    return [[{"role": "user", "content": item.asked}] for item in some]
