"""What general ability is watched on: short texts, everyday answers and four-choice questions of our own (`sets/`), or
the job's, and the general rows that are not trained on.

Texts and answers lose apart: a model that was taught one form of answering gives it to every question, and its reading
of plain prose may not move by a hundredth of a nat.

Questions are put as plain text (`Question: ... Answer: ...`), as lm-evaluation-harness puts those of ARC: a chat
template would let a model that merely answers in another style look as if it had lost what it knows.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, TypeVar

from rankwise.errors import DataError
from rankwise.records import Job, WatchedSet, content_hash
from rankwise.text.masks import IGNORE, Encoded
from rankwise.text.probes import Probe, read_probes
from rankwise.text.template import ChatText
from rankwise.text.tokens import tokens_of

SETS = Path(str(files("rankwise.text"))) / "sets"
OWN_TEXT, OWN_ANSWERS = SETS / "general_text.jsonl", SETS / "general_answers.jsonl"
OWN_QUESTIONS = SETS / "questions.jsonl"
MOST_ITEMS = 200  # rows or questions of a set; of more, the same ones are drawn each time
LONGEST = 256  # tokens of a row; what is behind them is not looked at
LEAST_ITEMS = 6  # with fewer, chance alone moves all of them the same way in more than 5 % of cases (sign test)
CHARACTERS = 4.2  # a token, in English text: where no tokenizer has been read yet
Item = TypeVar("Item")


@dataclass(frozen=True)
class AbilitySet:
    """One slice of general ability, ready to be asked.

    Attributes:
        items: for cross-entropy one row each; for choice one row for each choice, of which the answer's tokens are
            labelled.
        right: of choice, the number of the right one.
        chance: share of the questions that guessing gets right; None: nothing is chosen.
    """

    name: str
    metric: Literal["general_loss", "choice"]
    items: tuple[tuple[Encoded, ...], ...]
    right: tuple[int, ...] = ()
    chance: float | None = None

    @property
    def content(self) -> str:
        """Hash of all that is asked, after tokenizer and format."""
        return content_hash([self.metric, [[[r.ids, r.labels] for r in item] for item in self.items], self.right])

    def first(self, count: int | None) -> "AbilitySet":
        """At most so many of its items."""
        return AbilitySet(self.name, self.metric, self.items[:count], self.right[:count], self.chance)


def ability_sets(job: Job, chat: ChatText, general: Sequence[Encoded]) -> list[AbilitySet]:
    """Everything that a run of this job is watched on.

    Args:
        general: rows of `data.general` that are not trained on; empty where there are none.

    Raises:
        DataError: a file that cannot be read as rows or questions, or has too few to show a change.
        ModelError: rows that are conversations, and a model without a chat template.
    """
    found = text_sets(job.forgetting.general, chat)
    if general:
        items = tuple((_cut(general[number]),) for number in _drawn(len(general)))
        found.append(AbilitySet("general rows", "general_loss", _with_labels(items)))
    return [*found, question_set(job.forgetting.questions or OWN_QUESTIONS, chat)]


def text_sets(given: Path | None, chat: ChatText) -> list[AbilitySet]:
    """The rows of a file, else our own texts and, where the model has a chat template, our own answers. Raises as
    `ability_sets`.
    """
    found = [_texts("general text", given or OWN_TEXT, chat)]
    if given is None and chat.has_template:
        found.append(_texts("general answers", OWN_ANSWERS, chat))
    return found


def watched_facts(sets: Sequence[AbilitySet]) -> tuple[WatchedSet, ...]:
    """How much each set asks of a model: the choices of a question go through it together, padded."""
    return tuple(
        WatchedSet(
            name=s.name,
            metric=s.metric,
            items=len(s.items),
            tokens=sum(len(item) * max(len(row.ids) for row in item) for item in s.items),
            labelled=sum(label != IGNORE for item in s.items for row in item for label in row.labels[1:]),
            chance=s.chance,
        )
        for s in sets
    )


def described_facts() -> tuple[WatchedSet, ...]:
    """Our own sets where no tokenizer has been read: a token is taken as CHARACTERS characters, of a file's lines."""
    probes = read_probes(OWN_QUESTIONS)
    said = [len(choice) / CHARACTERS for p in probes for choice in p.choices]
    prompts = [len(_prompt(p)) / CHARACTERS for p in probes for _ in p.choices]
    asked = round(sum(said) + sum(prompts))
    return (
        _described("general text", OWN_TEXT),
        _described("general answers", OWN_ANSWERS),
        WatchedSet(
            name="general questions",
            metric="choice",
            items=len(probes),
            tokens=asked,
            labelled=round(sum(said)),
            chance=_chance(probes),
        ),
    )


def _described(name: str, path: Path) -> WatchedSet:
    lines = path.read_text(encoding="utf-8").splitlines()
    tokens = round(sum(map(len, lines)) / CHARACTERS)
    return WatchedSet(name=name, metric="general_loss", items=len(lines), tokens=tokens, labelled=tokens, chance=None)


def _texts(name: str, path: Path, chat: ChatText) -> AbilitySet:
    store = tokens_of(path, chat, 0)
    store.require_sound()
    rows = store.whole()
    items = tuple((_cut(_without_end(rows[number], chat)),) for number in _drawn(len(rows)))
    return AbilitySet(name, "general_loss", _enough(_with_labels(items), path, "rows"))


def question_set(path: Path, chat: ChatText) -> AbilitySet:
    """Questions of a file by the likelihood of their choices. Raises DataError as `ability_sets`."""
    probes = read_probes(path)
    for probe in probes:
        if not probe.choices:
            raise DataError(
                path,
                probe.line,
                "a question without choices",
                expected='{"question": text, "choices": [text, ...], "answer": one of them}',
                fix="general ability is watched by multiple choice; ask free answers with data.facts",
            )
    drawn = _enough(tuple(probes[number] for number in _drawn(len(probes))), path, "questions")
    items = tuple(_asked(probe, chat) for probe in drawn)
    right = tuple(probe.choices.index(probe.answer) for probe in drawn)
    return AbilitySet("general questions", "choice", items, right, _chance(drawn))


def _asked(probe: Probe, chat: ChatText) -> tuple[Encoded, ...]:
    """A row for each choice: the question, then the choice, which alone is labelled."""
    prompt = tuple(chat.encode_document(_prompt(probe)))
    prompt = prompt[:-1] if prompt[-1] == chat.eos_token_id else prompt
    said = [tuple(chat.encode(f" {choice}")) for choice in probe.choices]
    return tuple(Encoded((*prompt, *ids), (*[IGNORE] * len(prompt), *ids), probe.line) for ids in said)


def _prompt(probe: Probe) -> str:
    return f"Question: {probe.question}\nAnswer:"


def _chance(probes: Sequence[Probe]) -> float:
    return sum(1 / len(p.choices) for p in probes) / len(probes)


def _without_end(row: Encoded, chat: ChatText) -> Encoded:
    """A document without the token that ends it: when to stop is a habit that any tuning changes."""
    whole = len(row.ids) > 1 and IGNORE not in row.labels and row.ids[-1] == chat.eos_token_id
    return Encoded(row.ids[:-1], row.labels[:-1], row.line, row.path) if whole else row


def _cut(row: Encoded) -> Encoded:
    return Encoded(row.ids[:LONGEST], row.labels[:LONGEST], row.line, row.path)


def _with_labels(items: tuple[tuple[Encoded, ...], ...]) -> tuple[tuple[Encoded, ...], ...]:
    """Without rows whose first LONGEST tokens are context alone; a first token is predicted from nothing."""
    return tuple(item for item in items if any(label != IGNORE for label in item[0].labels[1:]))


def _drawn(count: int) -> list[int]:
    """Numbers of the items that are looked at, ascending; where there are more, drawn by a fixed seed."""
    return list(range(count)) if count <= MOST_ITEMS else sorted(random.Random(0).sample(range(count), MOST_ITEMS))


def _enough(items: tuple[Item, ...], path: Path, what: str) -> tuple[Item, ...]:
    if len(items) < LEAST_ITEMS:
        raise DataError(
            path,
            None,
            f"{len(items)} {what} cannot show whether a model forgets",
            expected=f"at least {LEAST_ITEMS} {what}, better 50",
            fix="add some, or leave the key out, and a set of our own is used",
        )
    return items
