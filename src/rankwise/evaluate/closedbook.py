"""What one model's answers to closed-book questions are worth, probe by probe."""

from collections.abc import Sequence

from rankwise.evaluate.knowledge import chosen, states
from rankwise.text.probes import Probe, Wording

Losses = Sequence[tuple[float, int]]


def right_answers(asked: Sequence[Wording], texts: Sequence[str]) -> list[bool]:
    """Which texts contain the expected words."""
    return [states(w.answer, text) for w, text in zip(asked, texts, strict=True)]


def slices(asked: Sequence[Wording], seen: Sequence[bool]) -> dict[str, list[bool]]:
    """Wordings that training asks in these words, wordings that it does not, and reversed questions, kept apart: name
    -> is each wording in it? Without those that hold nothing, or what `facts` says already.
    """
    kinds = {
        "facts_seen": [w.kind != "reversed" and said for w, said in zip(asked, seen, strict=True)],
        "facts_unseen": [w.kind != "reversed" and not said for w, said in zip(asked, seen, strict=True)],
        "facts_reversed": [w.kind == "reversed" for w in asked],
    }
    whole = [w.kind == "fact" for w in asked]
    return {name: inside for name, inside in kinds.items() if any(inside) and inside != whole}


def shares(asked: Sequence[Wording], right: Sequence[bool], inside: Sequence[bool]) -> list[float]:
    """Of each probe with a wording inside, in order: the share of those wordings that is answered rightly."""
    own: dict[int, list[bool]] = {}
    for wording, ok, counts in zip(asked, right, inside, strict=True):
        if counts:
            own.setdefault(wording.probe, []).append(ok)
    return [sum(own[probe]) / len(own[probe]) for probe in sorted(own)]


def by_probe(probes: Sequence[Probe], losses: Losses) -> list[Losses]:
    """The losses of all choices, one after the other -> those of each probe."""
    scored = iter(losses)
    return [[next(scored) for _ in p.choices] for p in probes]


def picked(probes: Sequence[Probe], losses: Sequence[Losses]) -> list[bool]:
    """Is the choice of lowest cross-entropy per token the right one?"""
    return [chosen(p, own) == p.answer for p, own in zip(probes, losses, strict=True)]
