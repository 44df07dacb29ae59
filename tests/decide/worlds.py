"""Small worlds whose steps are few and quick to trace, and the calls of them, each made once."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from rankwise.decide.configure import Rung
from rankwise.decide.ladder import Outcome, candidate_of, climb_all
from rankwise.decide.preference import takeable
from rankwise.decide.priced import Priced
from rankwise.decide.recipes import BY_NAME
from rankwise.decide.verdicts import Decision, decide
from rankwise.estimate.price import price_all
from rankwise.estimate.tracers import tracers
from rankwise.records import Candidate, DataFacts, DeviceFacts, Estimate, Facts, Job, ModelFacts, Plan
from tests import builders
from tests.builders import GB

LENGTH = 91
TINY, SMALL = builders.tiny(), builders.smollm2()
# Memory of a device between what a process takes and what everything needs: most of a ladder lies in it.
SCARCE = (int(0.55 * GB), int(1.6 * GB))


def card(memory_bytes: int = 2 * GB, count: int = 1, **changes: Any) -> DeviceFacts:
    """A GPU as fast as an A100, with little memory."""
    return builders.a100(memory_bytes=memory_bytes, count=count, **changes)


def world(
    model: ModelFacts = TINY, rows: int = 240, device: DeviceFacts | None = None, data: DataFacts | None = None
) -> Facts:
    return builders.facts(model, data or builders.data_facts(rows, LENGTH), device or card())


def real_prices(job: Job, facts: Facts, candidates: Sequence[Candidate]) -> list[Estimate]:
    """The estimate stage's, traced in this process."""
    with tracers(0):
        return price_all(job, facts, candidates)


class Counted:
    """The real prices, and what was asked of them."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, job: Job, facts: Facts, candidates: Sequence[Candidate]) -> list[Estimate]:
        self.asked.append([c.id for c in candidates])
        return real_prices(job, facts, candidates)

    @property
    def ids(self) -> list[str]:
        return [name for asked in self.asked for name in asked]


def climbed(job: Job, facts: Facts) -> list[Outcome]:
    """Every recipe that may be taken, to the end of its ladder."""
    return climb_all(job, facts, takeable(job, facts), real_prices)


def called(job: Job, facts: Facts) -> Decision:
    """The call by way of every ladder, which `first_that_runs` cuts short."""
    return decide(job, facts, climbed(job, facts))


def recipe_called(job: Job, facts: Facts) -> str:
    winner = called(job, facts).winner
    return winner.candidate.recipe if winner else "none"


def priced(recipe: str, job: Job | None = None, facts: Facts | None = None, rung: Rung | None = None) -> Priced:
    """One recipe on one rung, whether it fits or not."""
    job, facts = job or builders.job(), facts or world()
    candidate = candidate_of(job, facts, BY_NAME[recipe], rung or Rung())
    return Priced(candidate, real_prices(job, facts, [candidate])[0])


_plans: dict[tuple[str, str], Plan] = {}


def plan_of(job: Job, facts: Facts) -> Plan:
    key = (job.content_hash(), facts.content_hash())
    if key not in _plans:
        _plans[key] = builders.plan(job, facts)
    return _plans[key]


@cache
def usual() -> Plan:
    """A style job on a small model and a GPU with room for everything."""
    return plan_of(builders.job(), world())
