"""Rows that stand in the data twice, and rows that are held out and trained on."""

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import islice

import numpy as np

from rankwise.records.audit import AuditFinding
from rankwise.text.fitting import digests_of
from rankwise.text.formats import Row
from rankwise.text.masks import Encoded
from rankwise.text.probes import Probe
from rankwise.train.audit.findings import Spots, finding
from rankwise.train.audit.reading import Progress

LIKE = (
    0.8  # Jaccard similarity of word 5-grams from which on two rows are near copies (Lee et al. 2021, arXiv 2107.06499)
)
MOST_COMPARED = 100_000  # rows: about a millisecond and 20 kB each
WORDS = 5
PERMUTATIONS = 128
LEAKED = 0.01  # of the held-out rows: more copies among the training rows make the held-out loss worthless
WORD = re.compile(r"\w+")


def repeated(encoded: Sequence[Encoded]) -> list[AuditFinding]:
    """Rows whose ids are those of an earlier row."""
    _, first = np.unique(digests_of(encoded), return_index=True)
    later = np.ones(len(encoded), dtype=bool)
    later[first] = False
    again = Spots(encoded[int(number)] for number in later.nonzero()[0])
    return finding(
        "duplicates",
        "warning",
        again,
        len(encoded),
        f"{len(again)} rows are exact copies of an earlier row, and weigh so much more",
        "remove them, unless the weight is meant",
    )


def nearly_repeated(rows: Collection[Row], progress: Progress) -> list[AuditFinding]:
    """Rows that are nearly an earlier row, and not exactly one, of the first MOST_COMPARED; found by MinHash, then
    compared.
    """
    from datasketch import MinHash, MinHashLSH  # here: it loads scipy

    index = MinHashLSH(threshold=LIKE, num_perm=PERMUTATIONS)
    grams: list[set[str]] = []
    near = []
    total = min(len(rows), MOST_COMPARED)
    for number, row in enumerate(islice(rows, total)):
        mine = _grams(row)
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([gram.encode() for gram in mine])
        if any(LIKE <= _alike(mine, grams[other]) < 1 for other in index.query(sketch)):
            near.append(row)
        index.insert(number, sketch)
        grams.append(mine)
        if (number + 1) % 500 == 0 or number + 1 == total:
            progress("rows compared", number + 1, total)
    return finding(
        "near duplicates",
        "warning",
        Spots(near),
        total,
        f"{len(near)} rows share {LIKE:.0%} or more of their word {WORDS}-grams with an earlier row",
        "look at them: templates that differ in a name may be meant, copies with a typing error are not",
    )


def _grams(row: Row) -> set[str]:
    words = WORD.findall(_text(row).casefold())
    if len(words) < WORDS:
        return {" ".join(words)}
    return {" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)}


def _text(row: Row) -> str:
    said = (m.get("content") for m in row.messages if m["role"] != "system")  # the same in every row
    return row.text if row.text is not None else " ".join(s for s in said if isinstance(s, str))


def _alike(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(1, len(one | other))


def held_out_and_trained(training: Sequence[Encoded], held_out: Sequence[Encoded]) -> list[AuditFinding]:
    """Held-out rows that stand among the training rows, too."""
    trained = np.isin(digests_of(held_out), digests_of(training))
    leaked = Spots(held_out[int(number)] for number in trained.nonzero()[0])
    share = len(leaked) / max(1, len(held_out))
    return finding(
        "overlap",
        "fault" if share > LEAKED else "warning",
        leaked,
        len(held_out),
        f"{len(leaked)} held-out rows ({share:.1%}) are trained on, too, so their loss says nothing about new rows",
        "remove the copies, or hold out other rows",
        unit="held-out rows",
    )


def probes_in_training_words(training: Iterable[Row], probes: Sequence[Probe], asked: int) -> list[AuditFinding]:
    """Probes whose very words are trained on measure the wording, not the fact."""
    questions = {_plain(probe.question) for probe in probes}
    prompts: dict[str, Row] = {}
    for row in training if questions else ():
        for message in row.messages:
            asked = message["role"] == "user" and isinstance(message.get("content"), str)
            if asked and (words := _plain(message["content"])) in questions:
                prompts.setdefault(words, row)
    found = Spots(prompts[_plain(p.question)] for p in probes if _plain(p.question) in prompts)
    return finding(
        "probes",
        "warning",
        found,
        asked,
        f"{len(found)} closed-book questions are training prompts word for word",
        "ask them in other words (paraphrases), or they measure whether the wording was learned",
        unit="probes",
    )


def _plain(text: str) -> str:
    return " ".join(WORD.findall(text.casefold()))
