"""What is about to be priced, said before: traced side by side it takes half the time."""

from collections.abc import Iterator

from rankwise.decide.bound import least_bytes
from rankwise.decide.flips import Flips
from rankwise.decide.ladder import first_places, first_steps
from rankwise.decide.offers import Market, first_bids
from rankwise.decide.preference import compared, takeable
from rankwise.decide.priced import Priced
from rankwise.decide.questions import answered
from rankwise.records import Candidate, Facts, Job

TIGHT = 0.75  # of a device's memory: where the states fill more, the next recipe may be asked, too


def coming(
    job: Job, facts: Facts, again: Flips, winner: Priced | None, market: Market | None
) -> Iterator[tuple[Candidate, Facts]]:
    """The candidates that are never the verdict, the first rungs in every world that flips and questions look at, and
    the first offers. A guess: what it misses is traced when it is asked for, and it puts nothing into the plan itself.
    """
    for candidate in first_places(job, facts, compared(job, facts), winner):
        yield candidate, facts
    for world in (*again.worlds(), *answered(job, facts)):
        yield from _preferred(*world)
    yield from first_bids(job, facts, winner, market)


def _preferred(job: Job, facts: Facts) -> Iterator[tuple[Candidate, Facts]]:
    """The first recipe whose states can fit, and the next ones as long as they hardly do."""
    for candidate in first_steps(job, facts, takeable(job, facts)):
        yield candidate, facts
        if least_bytes(facts, candidate) <= TIGHT * (facts.device.memory_bytes or 0):
            return
