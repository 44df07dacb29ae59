"""How answers are, beside being right: refused, repeated, cut off, long or short.

A refusal is found by its words, in English, in the first two sentences of an answer: that the speaker cannot, will not
or must not do what is asked, or does not know it. Other languages and politer ways around are not seen; docs/eval.md
has the list that this was tested on.
"""

from collections.abc import Sequence

import regex

# A loop: the end of an answer is the same piece, said at least so many times in a row, over at least so many tokens.
LOOP_TIMES, LOOP_TOKENS = 4, 16
NGRAM = 4
# Characters of an answer in which a refusal stands, if there is one: later ones are remarks.
OPENING = 240

_NOT = r"(?:ca(?:n['’]?t|nnot|n not)|(?:am|['’]m) (?:not able|unable|not allowed|not permitted|not in a position) to)"
_NOT += r"|(?:will not|won['’]?t|must decline to|have to decline to|decline to|do not have the ability to)"
_DO = (
    "help|assist|provide|answer|give|offer|comply|fulfil|fulfill|share|discuss|recommend|create|write|generate|engage|"
    "support|access|browse|diagnose|say|tell you (?!how )|advise|confirm|determine|prescribe|verify|process|complete|"
    "do that|do this|find|look up|look that up|respond|disclose|reveal|proceed|predict|see your|open (?:links|files)"
)
_KNOWLEDGE = (
    "(?:any |enough |that |this |the |specific |reliable |further |sufficient |real-time |up-to-date )*"
    "(?:information|data|details|knowledge|record|records|context|answer)"
)
_REFUSALS = tuple(
    regex.compile(expression, regex.IGNORECASE)
    for expression in (
        rf"\bI(?:\s|(?=['’]))(?:really |simply |just |currently )?(?:{_NOT})\s+(?:\w+ly )?(?:{_DO})",
        r"\bI(?: do not|\sdon['’]?t) know\b(?! (?:how much you|if you))",
        rf"\bI(?: do not|\sdon['’]?t) (?:currently )?have (?:access to )?{_KNOWLEDGE}\b",
        r"\bI(?: do not|\sdon['’]?t) have (?:access to|permission|the ability)\b",
        rf"\bI have no (?:{_KNOWLEDGE}|idea|way of knowing|access)\b",
        r"\bI(?:['’]m| am) not (?:sure|aware of|familiar with|certain)\b(?! (?:whether you|if you|what you))",
        r"\bI(?:['’]m| am) (?:sorry|afraid),? (?:but )?(?:I )?(?:that['’]s not something|no\b|not able|unable)",
        r"\bI (?:could not|couldn['’]t|was(?: not|n['’]t) able to) (?:find|locate|determine|identify)\b",
        r"\bas an? (?:AI|artificial intelligence|(?:large )?language model)\b[^.!?]{0,120}\b(?:not|n['’]t|unable)\b",
        r"^(?:sorry|unfortunately|apologies|my apologies)\b[^.!?]{0,60}"
        r"\b(?:can(?:no|['’]?)t|unable|not (?:possible|able|allowed)|no (?:information|data))",
        r"\bthere is (?:no|not enough|insufficient) (?:information|data|context)\b",
        r"\b(?:is|are) (?:not|un)(?: known|known| available) to me\b",
        r"\b(?:against|violates?) (?:my|our|the) (?:policy|policies|guidelines|programming)\b",
    )
)
_SENTENCE = regex.compile(r"(?<=[.!?])\s+")


def refuses(answer: str) -> bool:
    """Does the answer begin by declining: it cannot, will not or must not, or does not know?"""
    opening = " ".join(_SENTENCE.split(" ".join(answer.split())[:OPENING])[:2])
    return any(expression.search(opening) for expression in _REFUSALS)


def repetition(ids: Sequence[int]) -> float:
    """seq-rep-4 of Welleck et al. 2020 (Neural Text Generation with Unlikelihood Training): the share of 4-grams of
    tokens that stood in the answer before; 0 where it has none.
    """
    grams = [tuple(ids[i : i + NGRAM]) for i in range(len(ids) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def loops(ids: Sequence[int]) -> bool:
    """Does it end in a loop: the last piece, of any length, said LOOP_TIMES times in a row, over LOOP_TOKENS tokens?"""
    for period in range(1, len(ids) // LOOP_TIMES + 1):
        run = period
        while run < len(ids) and ids[-run - 1] == ids[-run - 1 + period]:
            run += 1
        if run >= max(LOOP_TIMES * period, LOOP_TOKENS):
            return True
    return False
