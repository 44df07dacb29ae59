"""The lesson's claims with what is computed of each. A claim that no estimate or plan can show keeps its evidence."""

from collections.abc import Callable

from rankwise.estimate.lesson import costs, counts, memory, plans
from rankwise.estimate.lesson.desk import Desk
from rankwise.estimate.lesson.said import said_claims
from rankwise.records.tables import Claim, Figure, LessonClaim

CHECKS: dict[str, Callable[[Desk], list[Figure]]] = {
    **memory.CHECKS,
    **costs.CHECKS,
    **counts.CHECKS,
    **plans.CHECKS,
}


def claims_table(desk: Desk, progress: Callable[[str, int, int], None]) -> tuple[Claim, ...]:
    """Every claim of said.toml. Raises what an estimate or a plan raises."""
    found = []
    for done, said in enumerate(said_claims(), 1):
        found.append(claim(desk, said))
        progress("claims", done, len(said_claims()))
    return tuple(found)


def claim(desk: Desk, said: LessonClaim) -> Claim:
    """One claim beside its figures."""
    check = CHECKS.get(said.id)
    figures = None if check is None else tuple(_beside(figure, said) for figure in check(desk))
    return Claim(**said.model_dump(exclude={"values"}), computed=figures)


def _beside(figure: Figure, said: LessonClaim) -> Figure:
    return figure.model_copy(update={"said": said.values.get(figure.name)})
