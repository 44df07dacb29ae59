"""What is risky in a recipe: every check of this package run over it, faults first."""

from collections.abc import Callable, Iterator

from rankwise.observe.recipes import risks_of_learning, risks_of_rows, risks_of_saving
from rankwise.observe.recipes.about import About
from rankwise.records.recipe import Recipe, Risk

Check = Callable[[Recipe, About], Iterator[Risk]]
CHECKS: tuple[Check, ...] = (*risks_of_learning.CHECKS, *risks_of_rows.CHECKS, *risks_of_saving.CHECKS)
ORDER = {"fault": 0, "risk": 1, "note": 2}


def find_risks(recipe: Recipe, about: About) -> tuple[Risk, ...]:
    """Faults, then risks, then notes; each group in the order of the file."""
    found = [*recipe.faults, *(risk for check in CHECKS for risk in check(recipe, about))]
    return tuple(sorted(found, key=lambda r: (ORDER[r.level], r.line if r.line is not None else 1 << 30)))
