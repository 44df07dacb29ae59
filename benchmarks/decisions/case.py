"""A published head-to-head: what was asked, who took part, who won; `cases/*.toml` holds them, one file a source.

Sources are held out as a whole: in the order of the sha256 of their ids, from the front, until they hold a third of the
cases. The rule looks at names alone; `held_out` in a file must agree with it.
"""

import hashlib
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from rankwise.records.base import Record
from rankwise.records.job import Domain, Goal

FOLDER = Path(__file__).parent / "cases"
HELD_OUT = 1 / 3
Z = 1.96
RUNGS = ("retrieval", "prompting", "nothing")
Targets = Literal["all-linear", "mlp", "attention"]


class CaseError(ValueError):
    """A file of cases that cannot be used; the message names it."""


class Noise(Record):
    """What separates two scores: sizes of the tests that were averaged, or a stated gap."""

    items: tuple[int, ...] = Field((), description="Questions in each test; the score is the mean of their accuracies.")
    gap: float | None = Field(None, gt=0, description="95 % gap between two arms, in the metric's unit.")
    why: str | None = Field(None, description="Where the gap comes from.")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if bool(self.items) == (self.gap is not None):
            raise ValueError("give `items` or `gap`")
        if self.gap is not None and not self.why:
            raise ValueError("a stated gap needs its `why`")
        if any(count < 1 for count in self.items):
            raise ValueError("a test has at least one item")
        return self

    def between(self, one: float, other: float) -> float:
        """Smallest difference that is not chance at 95 %.

        1.96 sqrt(2 p (1 - p) / n), p the mean of the two (test of two proportions); for the mean over k tests
        the variances 1/n add up and are divided by k^2.
        """
        if self.gap is not None:
            return self.gap
        p = (one + other) / 2
        return Z * math.sqrt(2 * p * (1 - p) * sum(1 / n for n in self.items)) / len(self.items)


class Arm(Record):
    """One contestant."""

    name: str
    method: str = Field(description="A `--method` name, a rung below training, or a method that we do not have.")
    r: int | None = Field(None, ge=1)
    targets: Targets | None = None
    recipe: str | None = None
    learning_rate: float | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0)
    score: float | None = Field(None, description="As published; none where the arm did not run.")
    fits: bool = Field(True, description="Did it run on the hardware of the case?")
    why_not: str | None = None
    memory_gb: float | None = Field(None, gt=0, description="Peak of one GPU, 10^9 bytes, as published.")
    hours: float | None = Field(None, gt=0)
    usd: float | None = Field(None, gt=0)
    forgetting_nats: float | None = None

    @model_validator(mode="after")
    def _scored_if_it_ran(self) -> Self:
        if self.fits and self.score is None:
            raise ValueError(f"`{self.name}` ran but has no score")
        if not self.fits and not self.why_not:
            raise ValueError(f"`{self.name}` did not fit: say why in `why_not`")
        return self


class Case(Record):
    """One question with a known answer."""

    id: str
    title: str
    goal: Goal
    task: str
    domain: Domain
    model: str = Field(description="A name of `rankwise models`.")
    model_note: str | None = None
    force: str | None = Field(None, description="Family that the question presupposes; the call is about the rest.")
    examples: int = Field(ge=1)
    tokens_per_example: int = Field(ge=1)
    tokens_note: str = Field(description="Where examples and tokens come from; says so where they are assumed.")
    epochs: float | None = Field(None, gt=0)
    gpu: str
    count: int = Field(1, ge=1)
    gpu_note: str | None = None
    retrieval: Literal["possible", "no"] = "no"
    variants: int = Field(1, ge=1)
    usd_budget: float | None = Field(None, gt=0)
    hours_budget: float | None = Field(None, gt=0)
    memory_budget_gb: float | None = Field(None, gt=0)
    forgetting_budget_nats: float | None = Field(None, gt=0)
    replay_allowed: bool = True
    metric: str
    higher_is_better: bool
    noise: Noise
    note: str | None = None
    arms: tuple[Arm, ...]

    @model_validator(mode="after")
    def _has_an_answer(self) -> Self:
        if len({arm.name for arm in self.arms}) < max(2, len(self.arms)):
            raise ValueError("at least two arms, with different names")
        if not self.eligible():
            raise ValueError("no arm ran within the budget")
        return self

    def within(self, arm: Arm) -> bool:
        """Did the arm run, and inside the budget? An unpublished figure breaks no budget."""
        limits = (
            (arm.memory_gb, self.memory_budget_gb),
            (arm.hours, self.hours_budget),
            (arm.usd, self.usd_budget),
            (arm.forgetting_nats, self.forgetting_budget_nats),
        )
        return arm.fits and all(cost is None or limit is None or cost <= limit for cost, limit in limits)

    def eligible(self) -> tuple[Arm, ...]:
        return tuple(arm for arm in self.arms if self.within(arm))

    def behind(self, arm: Arm) -> float:
        """How much worse than the best eligible arm, in the metric's unit; never negative for eligible arms."""
        best, score = _scored(self.best()), _scored(arm)
        return best - score if self.higher_is_better else score - best

    def best(self) -> Arm:
        sign = 1 if self.higher_is_better else -1
        return max(self.eligible(), key=lambda arm: sign * _scored(arm))

    def gap(self, arm: Arm) -> float:
        """The noise between the best arm and this one."""
        return self.noise.between(_scored(self.best()), _scored(arm))

    def wins(self, arm: Arm) -> bool:
        """Eligible, and not worse than the best beyond the noise."""
        return self.within(arm) and self.behind(arm) <= self.gap(arm)

    def winners(self) -> tuple[Arm, ...]:
        return tuple(arm for arm in self.arms if self.wins(arm))

    @property
    def decisive(self) -> bool:
        """Does any arm lose, or break the budget?"""
        return len(self.winners()) < len(self.arms)


def _scored(arm: Arm) -> float:
    if arm.score is None:
        raise CaseError(f"`{arm.name}` has no score")
    return arm.score


class Source(Record):
    """Where cases come from."""

    id: str
    title: str
    url: str = Field(pattern=r"^https://")
    read: Literal["read", "abs", "rec"] = Field(
        description="read: text or data were read; abs: abstract or third-party notes; rec: recalled, not re-read."
    )
    where: str = Field(description="File, table or section that holds the figures.")
    evidence: str = Field(description="Evidence ids of the planner that rest on the same source; empty: none.")
    held_out: bool


class Sourced(Record):
    """One file: a source and its cases."""

    source: Source
    cases: tuple[Case, ...]


def read_cases(folder: Path = FOLDER) -> tuple[Sourced, ...]:
    """Every file of the folder, by name. Raises CaseError for one that cannot be used or a wrong `held_out`."""
    found = tuple(read_file(path) for path in sorted(folder.glob("*.toml")))
    ids = [case.id for of in found for case in of.cases]
    if twice := {name for name in ids if ids.count(name) > 1}:
        raise CaseError(f"ids of cases are used twice: {', '.join(sorted(twice))}")
    held = held_out({of.source.id: len(of.cases) for of in found})
    for of in found:
        if of.source.held_out != (of.source.id in held):
            raise CaseError(f"`held_out` of {of.source.id} must be {of.source.id in held}: the rule of case.py says so")
    return found


def read_file(path: Path) -> Sourced:
    try:
        return Sourced.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise CaseError(f"{path.name} is no file of cases: {error}") from error


def held_out(sizes: Mapping[str, int]) -> frozenset[str]:
    """Ids of the held-out sources. `sizes`: number of cases by source id."""
    names = sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    held: list[str] = []
    while sum(sizes[name] for name in held) < HELD_OUT * sum(sizes.values()):
        held.append(names[len(held)])
    return frozenset(held)


def flat(files: Sequence[Sourced]) -> list[tuple[Source, Case]]:
    """Every case beside its source."""
    return [(of.source, case) for of in files for case in of.cases]
