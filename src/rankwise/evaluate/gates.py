"""Requirements that an evaluation has to meet, such as `facts>=0.6` or `facts.difference>0`."""

import difflib
import operator
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, cast

from rankwise.errors import UsageError
from rankwise.records import Comparison, Evaluation, Gate, Tendency

Sign = Literal[">=", ">", "<=", "<"]
HOLDS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}
_FORM = re.compile(
    r"\s*(?P<metric>\w+)(?:\.(?P<side>base|tuned|difference))?(?:\.(?P<end>low|high))?\s*"
    r"(?P<comparison>>=|<=|>|<)\s*(?P<limit>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?P<percent>%?)\s*"
)
EXPECTED = (
    "NAME, NAME.base or NAME.difference, each perhaps with .low or .high (the ends of its 95 % interval), then >=, >, "
    "<= or <, then a number, as in 'facts>=0.6' or 'facts.difference.low>0'"
)


@dataclass(frozen=True)
class Requirement:
    """What is required.

    Attributes:
        text: as it was written.
        side: whose number: the tuned model's, the base's, or their difference.
        end: of the 95 % interval; None: the number itself.
    """

    text: str
    metric: str
    side: str
    end: str | None
    comparison: Sign
    limit: float

    @property
    def name(self) -> str:
        side = "" if self.side == "tuned" else f".{self.side}"
        return f"{self.metric}{side}{f'.{self.end}' if self.end else ''}"


def read_requirement(text: str, names: Collection[str]) -> Requirement:
    """Parse one requirement. A limit may be a percentage. Raises UsageError, with the nearest name.

    Args:
        names: of what can be measured.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"--require {text!r} cannot be read", expected=EXPECTED)
    if match["metric"] not in names:
        near = difflib.get_close_matches(match["metric"], sorted(names), 1)
        raise UsageError(
            f"--require {text!r}: nothing is named {match['metric']}",
            expected=f"one of {', '.join(sorted(names))}",
            fix=f"did you mean {near[0]}?" if near else "",
        )
    limit = float(match["limit"]) / (100 if match["percent"] else 1)
    sign = cast(Sign, match["comparison"])
    return Requirement(text, match["metric"], match["side"] or "tuned", match["end"], sign, limit)


def gate(requirement: Requirement, evaluation: Evaluation | None) -> Gate:
    """Is it met? What was not measured is not; of a model that nobody evaluated (None), nothing was."""
    value, unit = _value(requirement, evaluation) if evaluation is not None else (None, None)
    return Gate(
        requirement=requirement.text,
        name=requirement.name,
        comparison=requirement.comparison,
        limit=requirement.limit,
        value=value,
        unit=unit,
        met=value is not None and HOLDS[requirement.comparison](value, requirement.limit),
    )


def _value(requirement: Requirement, evaluation: Evaluation) -> tuple[float | None, str | None]:
    for comparison in evaluation.comparisons:
        if comparison.metric == requirement.metric:
            return _of_comparison(requirement, comparison), comparison.unit
    for tendency in evaluation.tendencies:
        if tendency.name == requirement.metric:
            return _of_tendency(requirement, tendency)
    return None, None


def _of_comparison(requirement: Requirement, comparison: Comparison) -> float:
    if requirement.end is None:
        return float(getattr(comparison, requirement.side))
    interval = getattr(comparison, f"{requirement.side}_interval")
    return float(interval[0 if requirement.end == "low" else 1])


def _of_tendency(requirement: Requirement, tendency: Tendency) -> tuple[float | None, str | None]:
    """Tendencies have no difference: nothing says which direction would be better."""
    measured = {"base": tendency.base, "tuned": tendency.tuned}.get(requirement.side)
    if measured is None:
        return None, None
    if requirement.end is None:
        return measured.value, measured.unit
    return measured.interval[0 if requirement.end == "low" else 1], measured.unit
