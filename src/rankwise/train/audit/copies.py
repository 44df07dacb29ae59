"""Rows that stand in the data twice, and rows that are held out and trained on."""

import re
from collections.abc import Iterable, Sequence

from rankwise.records.audit import AuditFinding
from rankwise.text.formats import Row
from rankwise.text.masks import Encoded
from rankwise.text.probes import Probe
from rankwise.train.audit.findings import finding
from rankwise.train.audit.reading import Progress

LIKE = (
    0.8  # Jaccard similarity of word 5-grams from which on two rows are near copies (Lee et al. 2021, arXiv 2107.06499)
)
WORDS = 5
PERMUTATIONS = 128
LEAKED = 0.01  # of the held-out rows: more copies among the training rows make the held-out loss worthless
WORD = re.compile(r"\w+")


def repeated(encoded: Sequence[Encoded]) -> list[AuditFinding]:
    """Rows whose ids are those of an earlier row."""
    seen: set[tuple[int, ...]] = set()
    again = []
    for row in encoded:
        if row.ids in seen:
            again.append(row)
        seen.add(row.ids)
    return finding(
        "duplicates",
        "warning",
        again,
        len(encoded),
        f"{len(again)} rows are exact copies of an earlier row, and weigh so much more",
        "remove them, unless the weight is meant",
    )


def nearly_repeated(rows: Sequence[Row], progress: Progress) -> list[AuditFinding]:
    """Rows that are nearly an earlier row, and not exactly one; found by MinHash, then compared."""
    from datasketch import MinHash, MinHashLSH  # here: it loads scipy

    index = MinHashLSH(threshold=LIKE, num_perm=PERMUTATIONS)
    grams: list[set[str]] = []
    near = []
    for number, row in enumerate(rows):
        mine = _grams(row)
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([gram.encode() for gram in mine])
        if any(LIKE <= _alike(mine, grams[other]) < 1 for other in index.query(sketch)):
            near.append(row)
        index.insert(number, sketch)
        grams.append(mine)
        if (number + 1) % 500 == 0 or number + 1 == len(rows):
            progress("rows compared", number + 1, len(rows))
    return finding(
        "near duplicates",
        "warning",
        near,
        len(rows),
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
    trained = {row.ids for row in training}
    leaked = [row for row in held_out if row.ids in trained]
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
    prompts: dict[str, Row] = {}
    for row in training:
        for message in row.messages:
            if message["role"] == "user" and isinstance(message.get("content"), str):
                prompts.setdefault(_plain(message["content"]), row)
    found = [prompts[_plain(p.question)] for p in probes if _plain(p.question) in prompts]
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
