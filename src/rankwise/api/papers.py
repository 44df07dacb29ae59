"""What the arms of a comparison will be asked, counted before one of them is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass

from rankwise.api.loading import load_inputs, probes_of
from rankwise.evaluate.exam import set_exam
from rankwise.evaluate.paper import write_paper
from rankwise.evaluate.paperwork import asked_of, paper_sizes, share_items
from rankwise.evaluate.ways import asking_of
from rankwise.records import Bakeoff, Plan
from rankwise.records.bakeoff import ArmKind
from rankwise.records.ledger import EvaluationWork
from rankwise.text.setaside import rows_learned, set_aside


@dataclass(frozen=True)
class Works:
    """What is asked of one model.

    Attributes:
        works: way to ask -> items of each kind at most -> what is asked.
        aside: rows that are set aside.
        items: metric that is a share -> its items, where all are asked.
    """

    works: Mapping[ArmKind, Mapping[int, EvaluationWork]]
    aside: int
    items: Mapping[str, int]


def works(bakeoff: Bakeoff, plan: Plan) -> Works:
    """Raises DataError, UsageError: there is nothing to ask."""
    _, chat, data = load_inputs(plan)
    seed, positions = plan.split_seed, plan.facts.model.max_position_embeddings
    kept, aside, last = set_aside(data, seed)
    job = bakeoff.job
    exam = set_exam(job, kept, probes_of(job), rows_learned(job, chat, seed, last))
    found: dict[ArmKind, dict[int, EvaluationWork]] = {}
    for kind in {a.arm.kind for a in bakeoff.allowances}:
        asking = asking_of(kind, rows_learned(job, chat, seed, last), chat, positions, seed)
        papers = {most: write_paper(exam, chat, asking, positions, most) for most in paper_sizes(exam)}
        found[kind] = {most: asked_of(paper, positions, ends=kind != "base") for most, paper in papers.items()}
    return Works(found, len(aside), share_items(exam))
