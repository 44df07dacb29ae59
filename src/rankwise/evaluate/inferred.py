"""What a well-formed answer is, where the job does not say: what nearly all answers of the data have in common.

Looked for in this order: JSON objects with the same keys; the same labels at the beginning of lines; the same words
at the beginning or the end; a list. What is common by chance is not a form: lengths, capitals and full stops are left
out, and so is a text that the answers share whole.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import regex

from rankwise.evaluate.style import Form, Rule

# Answers of the data below which nothing is inferred, and the share of them that must agree: one in 20 may be a slip.
FEWEST_ANSWERS = 8
AGREE = 0.95
# Words that answers must share at an end for that to be a form, and the most that are asked for.
FEWEST_WORDS, MOST_WORDS = 2, 8

_LABEL = regex.compile(r"^[ \t]*[#*_>-]*[ \t]*(\p{Lu}[\w /-]{0,40}?)[*_]*:", regex.MULTILINE)
_ITEM = regex.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]+\S", regex.MULTILINE)


def inferred_form(answers: Sequence[str]) -> Form | None:
    """The form that at least 95 % of the answers have; None where they are few or have none."""
    if len(answers) < FEWEST_ANSWERS:
        return None
    if (form := _json_form(answers)) is not None:
        return form
    found = [rule for look in (_labels, _beginning, _end, _list) if (rule := look(answers)) is not None]
    if not found:
        return None
    rules = [rule for rule, _ in found]
    said = "; ".join(words for _, words in found)
    return Form(
        lambda answer: all(rule(answer) for rule in rules), f"rules inferred from {len(answers)} answers: {said}"
    )


def _most(answers: Sequence[str], test: Callable[[str], bool]) -> bool:
    return sum(map(test, answers)) >= AGREE * len(answers)


def _json_form(answers: Sequence[str]) -> Form | None:
    values = [_parsed(answer) for answer in answers]
    if not _most(answers, lambda answer: isinstance(_parsed(answer), dict)):
        return None
    objects = [value for value in values if isinstance(value, dict)]
    kinds: dict[str, set[str]] = {}
    counts: Counter[str] = Counter()
    for value in objects:
        counts.update(value.keys())
        for key, inner in value.items():
            kinds.setdefault(key, set()).add(_kind(inner))
    needed = {key for key, count in counts.items() if count >= AGREE * len(objects)}

    def follows(answer: str) -> bool:
        value = _parsed(answer)
        if not isinstance(value, dict) or not needed <= value.keys() <= kinds.keys():
            return False
        return all(_kind(inner) in kinds[key] for key, inner in value.items())

    said = f"a JSON object with {', '.join(sorted(needed)) or 'known keys'}, of the same types"
    return Form(follows, f"rules inferred from {len(answers)} answers: {said}")


def _parsed(answer: str) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        return None


def _kind(value: Any) -> str:
    """A JSON type; whole and broken numbers are one."""
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def _labels(answers: Sequence[str]) -> tuple[Rule, str] | None:
    """Lines that begin with the same labels, in the same order."""
    orders = Counter(tuple(_LABEL.findall(answer)) for answer in answers)
    common, count = orders.most_common(1)[0]
    if not common or count < AGREE * len(answers):
        return None
    return lambda answer: tuple(_LABEL.findall(answer)) == common, f"lines labelled {', '.join(common)}"


def _beginning(answers: Sequence[str]) -> tuple[Rule, str] | None:
    """The same first words."""
    shared = _shared([answer.split() for answer in answers])
    if not shared:
        return None
    words = len(shared)
    return lambda answer: tuple(answer.split()[:words]) == shared, f'begins with "{" ".join(shared)}"'


def _end(answers: Sequence[str]) -> tuple[Rule, str] | None:
    """The same last words."""
    turned = _shared([answer.split()[::-1] for answer in answers])
    if not turned:
        return None
    shared, words = turned[::-1], len(turned)
    return lambda answer: tuple(answer.split()[-words:]) == shared, f'ends with "{" ".join(shared)}"'


def _shared(rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The longest beginning, of at most MOST_WORDS words, that nearly all rows have and go on from."""
    if len({tuple(row) for row in rows}) < len(rows) / 2:
        return ()  # few different answers, as of a classifier: what they share is what they say
    found: tuple[str, ...] = ()
    for size in range(FEWEST_WORDS, MOST_WORDS + 1):
        counted = Counter(tuple(row[:size]) for row in rows if len(row) > size).most_common(1)
        if not counted or counted[0][1] < AGREE * len(rows):
            break
        found = counted[0][0]
    return found


def _list(answers: Sequence[str]) -> tuple[Rule, str] | None:
    """A list of at least two items."""

    def lists(answer: str) -> bool:
        return len(_ITEM.findall(answer)) >= 2

    return (lists, "a list of items") if _most(answers, lists) else None
