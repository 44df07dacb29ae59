"""How much a paper asks of a model: tokens that are read, and answers that are said, before anybody is asked."""

from collections.abc import Sequence

from rankwise.evaluate.exam import Exam
from rankwise.evaluate.paper import Paper, Written
from rankwise.evaluate.prompts import Messages
from rankwise.evaluate.workload import PROBE_TOKENS
from rankwise.model.generate import BATCH, batches
from rankwise.model.prefix import read_once
from rankwise.records.ledger import AnswerBatch, EvaluationWork
from rankwise.text.masks import IGNORE, Encoded

FEWEST = 8  # items of each kind, below which nothing is told from anything


def paper_sizes(exam: Exam) -> list[int]:
    """Items of each kind at most, from FEWEST up in steps of about a third to all that there are."""
    data = exam.data
    largest = max(len(data.validation), len(data.general), len(exam.held_out), len(exam.probes), FEWEST)
    sizes = [FEWEST]
    while sizes[-1] < largest:
        sizes.append(min(largest, -(-sizes[-1] * 4 // 3)))
    return sizes


def work_of(paper: Paper, positions: int | None) -> EvaluationWork:
    """Every answer until it is cut off: what a model asks for at most. What items begin with alike is read once.

    Args:
        positions: of the model.
    """
    read = [
        *_once(paper, paper.loss_rows),
        *_once(paper, Written(*_flat(paper.choices))),
        *((row, len(row.ids)) for row in paper.exam.data.general),
    ]
    said = [*_answering(paper, paper.replies, paper.room, positions)]
    said += _answering(paper, paper.questions, PROBE_TOKENS, positions)
    return EvaluationWork(
        rows=len(read),
        tokens=sum(tokens for _, tokens in read),
        labelled=sum(label != IGNORE for row, _ in read for label in row.labels[1:]),
        batches=tuple(said),
    )


def _flat(choices: Written[list[Encoded]]) -> tuple[list[Encoded], list[bool]]:
    rows = [row for own in choices.items for row in own]
    return rows, [yes for own, yes in zip(choices.items, choices.changed, strict=True) for _ in own]


def _once(paper: Paper, rows: Written[Encoded]) -> list[tuple[Encoded, int]]:
    """Each row with the tokens that are read for it."""
    alike = [list(rows.items[i].ids) for i in rows.numbers(True)] if paper.asking.alike else []
    shared = read_once(alike) if alike else 0
    first = True
    found = []
    for row, changed in zip(rows.items, rows.changed, strict=True):
        skipped = 0 if first or not (changed and shared) else shared
        first = first and not changed
        found.append((row, len(row.ids) - skipped))
    return found


def _answering(paper: Paper, prompts: Written[Messages], room: int, positions: int | None) -> list[AnswerBatch]:
    found = []
    for changed in (True, False):
        encoded = [paper.chat.encode_prompt(prompts.items[i]) for i in prompts.numbers(changed)]
        if not encoded:
            continue
        shared = read_once(encoded) if changed and paper.asking.alike else 0
        for most, rows in batches(encoded, room, positions, BATCH):
            found.append(AnswerBatch(rows=len(rows), prompt=max(len(encoded[i]) - shared for i in rows), steps=most))
    return found

