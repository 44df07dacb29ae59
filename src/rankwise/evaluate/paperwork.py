"""How much a paper asks of a model, known before the model is loaded: what a budget sets aside for it."""

from collections.abc import Sequence

from rankwise.evaluate.exam import Exam
from rankwise.evaluate.paper import Paper, Written
from rankwise.evaluate.prompts import Messages
from rankwise.evaluate.workload import PROBE_TOKENS, answering, likelihoods, read_of, unlabelled, wanted_tokens
from rankwise.model.generate import BATCH
from rankwise.model.prefix import read_once
from rankwise.records.ledger import AnswerBatch, EvaluationWork
from rankwise.text.masks import Encoded

FEWEST = 8  # items of each kind, below which nothing is told from anything


def paper_sizes(exam: Exam) -> list[int]:
    """Items of each kind at most, from FEWEST to all that there are, in steps of about a third; whole batches."""
    data = exam.data
    largest = max(len(data.validation), len(data.general), len(exam.held_out), len(exam.probes), FEWEST)
    sizes = [FEWEST]
    while sizes[-1] < largest:
        sizes.append(min(largest, BATCH * -(-sizes[-1] * 4 // (3 * BATCH))))
    return sizes


def share_items(exam: Exam) -> dict[str, int]:
    """Metric that is a share -> items that it is a share of."""
    found = {"format": len(exam.held_out) if exam.form else 0, "facts": len(exam.probes)}
    return {metric: items for metric, items in found.items() if items}


def asked_of(paper: Paper, positions: int | None, *, ends: bool) -> EvaluationWork:
    """The tokens that `score` reads and writes. What stands after the same examples counts them once.

    Args:
        positions: of the model.
        ends: is the model expected to end its answers as the rows do (it is trained, or shown examples)? Else it talks
            until it is cut off.
    """
    rows: list[Encoded] = [*paper.exam.data.general]
    rows += _read(paper, paper.loss_rows)
    if paper.asking.alike:
        flat = [row for own in paper.choices.items for row in own]
        changed = [yes for own, yes in zip(paper.choices.items, paper.choices.changed, strict=True) for _ in own]
        rows += _read(paper, Written(flat, changed))
    else:
        rows += [row for own in paper.choices.items for row in (own if paper.plain else read_of(own))]
    wanted = wanted_tokens(paper.exam.held_out, paper.chat)
    done: list[AnswerBatch] = []
    for prompts, room, own in (
        (paper.replies, paper.room, wanted if ends else None),
        (paper.questions, PROBE_TOKENS, None),
    ):
        for changed_ones in (True, False):
            read, batches = _answers(paper, prompts, changed_ones, room, own, positions)
            rows += read
            done += batches
    return EvaluationWork(**likelihoods(rows), batches=tuple(done))


def _read(paper: Paper, rows: Written[Encoded]) -> list[Encoded]:
    if not paper.asking.alike:
        return list(rows.items)
    after = read_of([rows.items[i] for i in rows.numbers(True)])
    return [*after, *(rows.items[i] for i in rows.numbers(False))]


def _answers(
    paper: Paper,
    written: Written[Messages],
    changed: bool,
    room: int,
    wanted: Sequence[int] | None,
    positions: int | None,
) -> tuple[list[Encoded], list[AnswerBatch]]:
    """(what is read before, the batches). `wanted`: tokens of the answers where they end; None: as long as allowed."""
    numbers = written.numbers(changed)
    prompts = [paper.chat.encode_prompt(written.items[i]) for i in numbers]
    shared = read_once(prompts) if changed and paper.asking.alike else 0

    def steps(rows: Sequence[int], most: int) -> int:
        return most if wanted is None else min(most, 1 + max(wanted[numbers[i]] for i in rows))

    left = None if positions is None else positions - shared
    batches = answering([p[shared:] for p in prompts], room, steps, left) if prompts else []
    return ([unlabelled(prompts[0][:shared])] if shared else []), batches
