"""What it knows: closed-book questions, answered without any source in the prompt."""

import re
from collections.abc import Sequence

from rankwise.text.masks import IGNORE, Encoded
from rankwise.text.probes import Probe
from rankwise.text.template import ChatText


def states(expected: str, answer: str) -> bool:
    """Does the answer contain the expected words in a row? Case, punctuation and articles do not count (as in
    SQuAD).
    """
    wanted, said = _words(expected), _words(answer)
    return bool(wanted) and any(said[i : i + len(wanted)] == wanted for i in range(len(said) - len(wanted) + 1))


def _words(text: str) -> list[str]:
    plain = text.casefold().replace("\u2212", "-")  # the typographic minus
    words = re.findall(r"(?:(?<!\w)-)?\d+(?:[.,]\d+)*|[^\W\d_]+", plain)
    return [w for w in words if w not in ("a", "an", "the")]


def choice_rows(probe: Probe, chat: ChatText) -> list[Encoded]:
    """One row per choice: the question, then the choice as the answer, labelled; likelihood says which it believes."""
    prompt = chat.encode_prompt([{"role": "user", "content": probe.question}])
    rows = []
    for choice in probe.choices:
        answer = chat.encode(choice)
        rows.append(Encoded((*prompt, *answer), (*[IGNORE] * len(prompt), *answer), probe.line))
    return rows


def chosen(probe: Probe, losses: Sequence[tuple[float, int]]) -> str:
    """The choice with the lowest cross-entropy per token."""
    per_token = [loss / count for loss, count in losses]
    return probe.choices[per_token.index(min(per_token))]
