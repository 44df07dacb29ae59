"""Times turned round: tokens a second, runs a week, runs a dollar. Their ranges follow from that of the time."""

from rankwise.records import Estimate, Interval
from rankwise.report.quantities import plain


def tokens(estimate: Estimate) -> str:
    """1,200 to 2,100; empty where the time has no range."""
    return _range(estimate.time.tokens_per_second, estimate.time.train_seconds, estimate.time.interval)


def a_week(estimate: Estimate) -> str:
    velocity = estimate.velocity
    return _range(velocity.runs_per_week, velocity.turnaround_seconds, velocity.interval)


def a_dollar(estimate: Estimate) -> str:
    """The price of a run is in proportion to its time."""
    velocity = estimate.velocity
    return _range(velocity.runs_per_usd, velocity.turnaround_seconds, velocity.interval)


def _range(value: float | None, seconds: float | None, interval: Interval | None) -> str:
    if value is None or not seconds or interval is None or interval[0] <= 0:
        return ""
    low, high = (value * seconds / end for end in reversed(interval))
    return f"{plain(low)} to {plain(high)}"
