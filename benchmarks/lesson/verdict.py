"""Numbers of seeds -> confirmed, refuted or cannot tell, by a rule that stands before the run.

Each seed gives one paired number (the same data, order and test items for both sides). Its 95 % interval over seeds is
Student's; of a difference of two shares of the same items it is at least as wide as that of the items (Agresti and Min
2005, doi 10.1002/sim.1781: the interval of a difference of matched pairs with half an observation added to each cell),
because three seeds that agree by chance have no spread. An interval that lies wholly where the prediction puts it
confirms, one that lies wholly where it must not refutes, and any other cannot tell.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Literal

from scipy.stats import norm, t

Outcome = Literal["confirmed", "refuted", "cannot tell"]
LEVEL = 0.95
FEWEST = 2  # seeds of which an interval can be made
SIGNS = {
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
}


@dataclass(frozen=True)
class Condition:
    """A side of a limit, such as `< 2.0`."""

    sign: str
    limit: float

    @classmethod
    def read(cls, text: str) -> "Condition":
        sign, limit = text.split()
        if sign not in SIGNS:
            raise ValueError(f"{text!r}: a condition begins with one of {', '.join(SIGNS)}")
        return cls(sign, float(limit))

    def holds(self, *values: float) -> bool:
        """For all of them, so for an interval when for both of its ends."""
        return all(SIGNS[self.sign](value, self.limit) for value in values)


@dataclass(frozen=True)
class Rule:
    """When a number confirms, and when it refutes.

    Attributes:
        by: `interval` holds the interval over seeds against the conditions; `every` asks them of each seed, where a
            number is exact but for its seed.
        confirmed: all of them must hold; refuted: one of them is enough.
    """

    by: Literal["interval", "every"]
    confirmed: tuple[Condition, ...]
    refuted: tuple[Condition, ...]

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> "Rule":
        sides = {name: tuple(map(Condition.read, said[f"{name}_if"])) for name in ("confirmed", "refuted")}
        return cls(said["by"], **sides)


def judge(rule: Rule, values: Sequence[float], interval: tuple[float, float] | None) -> Outcome:
    """The outcome of one number over seeds; without an interval where the rule needs one, cannot tell."""
    if rule.by == "every":
        if all(condition.holds(*values) for condition in rule.confirmed):
            return "confirmed"
        wrong = all(any(condition.holds(value) for condition in rule.refuted) for value in values)
        return "refuted" if wrong else "cannot tell"
    if interval is None:
        return "cannot tell"
    if all(condition.holds(*interval) for condition in rule.confirmed):
        return "confirmed"
    return "refuted" if any(condition.holds(*interval) for condition in rule.refuted) else "cannot tell"


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Of a prediction that says several things at once: one that is refuted refutes it."""
    if "refuted" in outcomes:
        return "refuted"
    return "confirmed" if all(o == "confirmed" for o in outcomes) else "cannot tell"


def over_seeds(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean; None for fewer than two seeds."""
    if len(values) < FEWEST:
        return None
    half = t.ppf(0.5 + LEVEL / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def over_items(pairs: Sequence[tuple[bool, bool]]) -> tuple[float, float]:
    """95 % interval of (share of firsts) - (share of seconds) over the same items, by Agresti and Min."""
    lost = sum(second and not first for first, second in pairs) + 0.5
    won = sum(first and not second for first, second in pairs) + 0.5
    n = len(pairs) + 2
    gap = (won - lost) / n
    half = norm.ppf(0.5 + LEVEL / 2) * math.sqrt(max(0.0, (won + lost) - n * gap**2)) / n
    return gap - half, gap + half


def hull(*intervals: tuple[float, float] | None) -> tuple[float, float] | None:
    """From the lowest to the highest; None where one is not known."""
    known = [i for i in intervals if i is not None]
    if len(known) < len(intervals):
        return None
    return min(low for low, _ in known), max(high for _, high in known)
