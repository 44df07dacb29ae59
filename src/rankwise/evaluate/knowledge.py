"""What it knows: closed-book questions, answered without any source in the prompt."""

import re
import string
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from math import exp
from typing import Any

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


def squad_words(text: str) -> list[str]:
    """The words that SQuAD's evaluation script compares (`normalize_answer` of evaluate-v1.1.py, Rajpurkar et al.
    2016): lower case, without ASCII punctuation and articles.
    """
    plain = "".join(c for c in text.lower() if c not in _PUNCTUATION)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


_PUNCTUATION = frozenset(string.punctuation)


def normalised(expected: str, answer: str) -> bool:
    """SQuAD's exact match: the same words after its normalisation."""
    return squad_words(expected) == squad_words(answer)


def token_f1(expected: str, answer: str) -> float:
    """SQuAD's F1: harmonic mean of precision and recall over words, each counted as often as it stands there; 0 to 1.
    Two texts without a word are equal.
    """
    wanted, said = squad_words(expected), squad_words(answer)
    if not wanted or not said:
        return float(wanted == said)
    shared = sum((Counter(wanted) & Counter(said)).values())
    return 2 * shared / (len(wanted) + len(said))


def choice_rows(probe: Probe, chat: ChatText) -> list[Encoded]:
    """One row per choice: the question, then the choice as the answer, labelled; likelihood says which it believes."""
    return answer_rows([{"role": "user", "content": probe.question}], probe.choices, chat, probe.line)


def answer_rows(
    messages: Sequence[Mapping[str, Any]], answers: Sequence[str], chat: ChatText, line: int = 0
) -> list[Encoded]:
    """One row per answer to the conversation; the answer's tokens are labelled, no stop token is added."""
    prompt = chat.encode_prompt(messages)
    rows = []
    for text in answers:
        ids = chat.encode(text)
        rows.append(Encoded((*prompt, *ids), (*[IGNORE] * len(prompt), *ids), line))
    return rows


def chosen(probe: Probe, losses: Sequence[tuple[float, int]]) -> str:
    """The choice with the lowest cross-entropy per token."""
    per_token = [loss / count for loss, count in losses]
    return probe.choices[per_token.index(min(per_token))]


def belief(losses: Sequence[float]) -> tuple[int, float]:
    """(number of the likeliest choice, its probability given that one of them is said), from summed nats."""
    best = min(range(len(losses)), key=lambda i: losses[i])
    return best, 1 / sum(exp(losses[best] - loss) for loss in losses)


def asked_otherwise(question: str, training: Collection[str]) -> bool:
    """Does no training row ask it in these words? Case, punctuation and articles do not count.

    Args:
        training: questions as `wording` gives them.
    """
    return wording(question) not in training


def wording(question: str) -> str:
    """A question without what `states` does not count."""
    return " ".join(_words(question))
