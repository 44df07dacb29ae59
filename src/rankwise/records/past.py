"""What an earlier comparison on this machine found: a line of the file that later plans cite."""

from typing import Literal

from pydantic import Field

from rankwise.records.base import Interval, Record

Side = Literal["style", "facts", "task", "forgetting"]


class PastArm(Record):
    """One arm of it."""

    name: str
    method: str | None = Field(description="A `--method` name; None: untrained.")
    r: int | None
    learning_rate: float | None = Field(description="That its sweep chose.")
    tried: int = Field(description="Learning rates of the sweep; 1: none was swept.")
    at_the_edge: bool = Field(description="The chosen rate is the lowest or highest that was tried.")
    steps: int = Field(description="Optimizer steps of each of its final runs.")


class PastContrast(Record):
    """Two arms on the first metric of one side."""

    metric: str
    unit: str
    side: Side
    first: str
    second: str
    difference: float = Field(description="first - second.")
    interval: Interval = Field(description="At the level that holds 95 % for all contrasts of this metric together.")
    answer: Literal["better", "worse", "cannot tell"] = Field(description="Of `first`.")
    seeds: int

    @property
    def winner(self) -> str | None:
        """The arm that is shown to be better."""
        return {"better": self.first, "worse": self.second, "cannot tell": None}[self.answer]

    @property
    def loser(self) -> str | None:
        return {"better": self.second, "worse": self.first, "cannot tell": None}[self.answer]

    def gap(self) -> str:
        """full over lora:r=8 on facts: +12 points [+3 to +21]; the shown winner first."""
        sign = -1 if self.answer == "worse" else 1
        first, second = (self.first, self.second)[::sign]
        low, high = sorted(sign * end for end in self.interval)
        return f"{first} over {second} on {self.side}: {gap_words(sign * self.difference, (low, high), self.unit)}"


class PastComparison(Record):
    """One finished comparison."""

    version: Literal[1] = 1
    at: str = Field(description="UTC, ISO 8601, when it ended.")
    folder: str = Field(description="Where all of it lies, if nobody moved it.")
    model: str = Field(description="As its job named the base.")
    base_hash: str = Field(description="Of the base's weights.")
    goal: str
    domain: str | None
    unit: Literal["flops", "minutes", "usd"]
    budget: float = Field(description="Of the whole comparison, in `unit`.")
    seeds: int
    arms: tuple[PastArm, ...]
    contrasts: tuple[PastContrast, ...]
    bakeoff_hash: str
    rankwise_version: str

    @property
    def told(self) -> str:
        """comparison of 2026-11-23 (runs/compare-clinic)"""
        return f"comparison of {self.at[:10]} ({self.folder})"


class Past(Record):
    """All comparisons on file, seen from one job."""

    here: tuple[PastComparison, ...] = Field(description="On the same base weights, newest first.")
    elsewhere: tuple[str, ...] = Field(description="The base of each of the others, as its job named it.")
    unreadable: int = Field(description="Lines of the file that are no comparison of this version.")


def gap_words(difference: float, interval: Interval, unit: str) -> str:
    """A difference with its interval: +12 points [+3 to +21], or in the unit of a loss."""
    if unit == "share":
        return f"{100 * difference:+z.0f} points [{100 * interval[0]:+z.0f} to {100 * interval[1]:+z.0f}]"
    return f"{difference:+.3g} {unit} [{interval[0]:+.3g} to {interval[1]:+.3g}]"
