"""What the lesson said: said.toml as records."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from rankwise.records.tables import LessonClaim, SaidCost, SaidMemory


@cache
def _lesson() -> dict[str, Any]:
    return tomllib.loads(files("rankwise.estimate.lesson").joinpath("said.toml").read_text(encoding="utf-8"))


def said_number(name: str) -> float:
    """A number that the lesson assumes, by its key at the top of said.toml."""
    return float(_lesson()[name])


@cache
def said_claims() -> tuple[LessonClaim, ...]:
    """Every claim, in the order of the file (by topic)."""
    return tuple(LessonClaim.model_validate(entry) for entry in _lesson()["claim"])


def said_memory(size: str, method: str) -> SaidMemory | None:
    """A cell of its memory table; None where it has none."""
    cell = _lesson()["memory"].get(size, {}).get(method)
    return None if cell is None else SaidMemory.model_validate(cell)


def said_cost(size: str, method: str) -> SaidCost | None:
    """A cell of its cost table; None where it has none."""
    cell = _lesson()["cost"].get(size, {}).get(method)
    return None if cell is None else SaidCost.model_validate(cell)
