"""The rules and their evidence, read from rules.toml and evidence.toml: what is decided in code takes its numbers and
its sources from here, and the documentation is made of the same."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import Field

from rankwise.records.base import Record


class Threshold(Record):
    """One number of a rule."""

    value: float
    unit: str
    means: str


class RuleText(Record):
    """One rule as it stands in rules.toml."""

    id: str
    title: str
    step: Literal["need", "capacity", "feasibility", "cost", "risk", "configuration"]
    kind: Literal["hard", "soft", "choice", "configuration", "warning"]
    inputs: tuple[str, ...]
    thresholds: dict[str, Threshold] = Field(default_factory=dict)
    direction: str
    evidence: tuple[str, ...]
    confidence: str
    other_side: str


class Evidence(Record):
    """One source as it stands in evidence.toml."""

    id: str
    source: str
    setup: str
    text: str
    confidence: str
    read: Literal["read", "abs", "rec", "calc", "run"]
    other_side: str = ""

    def told(self) -> str:
        """Id, source, setup and numbers, and the other side, in one paragraph."""
        other = f" The other side: {self.other_side}" if self.other_side else ""
        return f"{self.id}: {self.source}. {self.setup}: {self.text}{other}"


@cache
def rules() -> dict[str, RuleText]:
    """Id -> rule, in the order of the file."""
    return {name: RuleText(id=name, **entry) for name, entry in _read("rules.toml").items()}


@cache
def evidence() -> dict[str, Evidence]:
    """Id -> evidence, in the order of the file."""
    return {name: Evidence(id=name, **entry) for name, entry in _read("evidence.toml").items()}


def threshold(rule: str, name: str) -> float:
    """The number of a rule, in the unit that rules.toml says. Raises KeyError."""
    return rules()[rule].thresholds[name].value


def cite(rule: str) -> tuple[str, ...]:
    """The evidence of a rule, each spelled out; nothing for a rule that stands on arithmetic alone."""
    return tuple(evidence()[name].told() for name in rules()[rule].evidence)


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(files("rankwise.decide").joinpath(name).read_text(encoding="utf-8"))
