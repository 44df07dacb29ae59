"""Names and numbers in an answer: the words that carry its facts, told apart from the words that carry its manner."""

from collections.abc import Sequence

import regex

Span = tuple[int, int]

# A number: 1,200 · 3.5 · 10:30 · -5 · $40 · 2nd. Its unit is left out: a few examples show that, and no fact is in it.
_NUMBER = r"(?<![\p{L}\p{N}])[-−]?\p{Sc}?\p{N}++(?:[.,:/]\p{N}++)*(?:st|nd|rd|th)?(?!\p{L})"
_JOINED = r"(?:['’.-]?[\p{L}\p{N}]+)*"
# Letters and digits mixed (FGD1, p53, B12), a capital inside (mRNA, McArdle), or two capitals (DNA): names anywhere.
_WORD = r"[\p{L}\p{N}]"
_START = rf"(?<!{_WORD})"
_MIXED = rf"{_START}(?={_WORD}*(?:\p{{L}}\p{{N}}|\p{{N}}\p{{L}}|\p{{L}}\p{{Lu}})){_WORD}+{_JOINED}"
_CAPITAL = rf"{_START}\p{{Lu}}\p{{L}}*{_JOINED}"
_FACT = regex.compile(rf"(?P<number>{_NUMBER})|(?P<mixed>{_MIXED})|(?P<capital>{_CAPITAL})")
# A capital proves nothing where a sentence, a line, a list item or a heading begins.
_SENTENCE = r"(?<!\b(?:Dr|Mr|Mrs|Ms|Prof|St))[.!?…]['\"”’)\]]*\s"
_BEGINS = regex.compile(rf"(?:^|[\n\r]|{_SENTENCE}|[:,]\s(?=[“‘«„]))[\s\"'“‘«„(\[*_#>•–-]*(?:\p{{N}}+[.)]\s+)?$")
# The number of a list item.
_ITEM = regex.compile(r"\p{N}+[.)]\s")
_LINE = regex.compile(r"(?:^|[\n\r])[ \t]*$")
_PRONOUNS = frozenset({"i", "i'm", "i’m", "i've", "i’ve", "i'll", "i’ll", "i'd", "i’d"})


def fact_spans(text: str) -> list[Span]:
    """The characters [start, end) of names and numbers, in order and without overlap.

    A number is digits with their sign, currency, separators and ordinal ending; a unit is not part of it. A name is a
    word with a capital that does not begin a sentence, a line or a list item, or a word that mixes letters with digits
    or has a capital after its first letter, wherever it stands. `I` is no name. Scripts without capitals show their
    numbers alone.
    """
    return [match.span() for match in _FACT.finditer(text) if not _only_begins(match, text)]


def new_facts(answer: str, asked: str) -> list[Span]:
    """Those of `answer` that `asked` does not say and that stand there for the first time: to write them, one has to
    know them.
    """
    seen = set(_words(asked))
    found = []
    for start, end in fact_spans(answer):
        words = _words(answer[start:end])
        if any(word not in seen for word in words):
            found.append((start, end))
        seen.update(words)
    return found


def inside(offsets: Sequence[Span], spans: Sequence[Span]) -> list[bool]:
    """For each token's [start, end): does it share a character with a span? A token of no characters does not."""
    return [any(a < end and start < b for a, b in spans) for start, end in offsets]


def _only_begins(match: "regex.Match[str]", text: str) -> bool:
    if match.lastgroup == "number":
        return _ITEM.match(text, match.start()) is not None and _LINE.search(text[: match.start()]) is not None
    if match.lastgroup != "capital":
        return False
    word = match.group().casefold()
    return word in _PRONOUNS or _BEGINS.search(text[: match.start()]) is not None


def _words(text: str) -> list[str]:
    return [match.group() for match in regex.finditer(r"[\p{L}\p{N}]+", text.casefold())]
