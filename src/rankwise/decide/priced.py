"""A candidate with its estimate, and the type of the function that prices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rankwise.decide.recipes import BY_NAME, Recipe
from rankwise.records import Candidate, Estimate, Facts, Job

# Prices candidates on the facts' device, in their order. It comes from the estimate stage.
Price = Callable[[Job, Facts, Sequence[Candidate]], list[Estimate]]
# Told which candidates on which facts are about to be priced, so that they can be traced side by side.
Announce = Callable[[Sequence[tuple[Candidate, Facts]]], None]


@dataclass(frozen=True)
class Priced:
    """A candidate with its estimate."""

    candidate: Candidate
    estimate: Estimate

    @property
    def id(self) -> str:
        return self.candidate.id

    @property
    def recipe(self) -> Recipe:
        return BY_NAME[self.candidate.recipe]
