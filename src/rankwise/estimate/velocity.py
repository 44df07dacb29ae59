"""How fast a team learns: the time from the start of a run to a model that is judged."""

from rankwise.estimate.money import failure_share
from rankwise.records import CostOptions, MoneyEstimate, TimeEstimate, VelocityEstimate

WEEK = 7 * 24 * 3600


def estimate_velocity(
    time: TimeEstimate,
    money: MoneyEstimate,
    options: CostOptions,
    *,
    checkpoint_interval_seconds: float | None = None,
) -> VelocityEstimate:
    """Runs one after the other on this hardware, day and night; waiting for people and for machines is left out.

    The turnaround is the whole run with its validations and checkpoints (`train_seconds`), what deaths and restarts
    add on average, and the merge where there is one. A run costs its price for as long as that.

    Args:
        checkpoint_interval_seconds: as `estimate_money` takes it.

    Returns:
        None for whatever depends on a time or a price that is unknown.
    """
    extra = failure_share(time, options, checkpoint_interval_seconds)
    if time.train_seconds is None or extra is None:
        return VelocityEstimate(turnaround_seconds=None, runs_per_week=None, runs_per_usd=None)
    merge = time.merge_seconds or 0.0
    turnaround = time.train_seconds * (1 + extra) + merge
    low, high = time.relative or (1.0, 1.0)
    ends = time.interval and (
        time.interval[0] * (1 + extra) + merge * low,
        time.interval[1] * (1 + extra) + merge * high,
    )
    return VelocityEstimate(
        turnaround_seconds=turnaround,
        interval=ends,
        runs_per_week=WEEK / turnaround if turnaround else None,
        runs_per_usd=_per_usd(time.train_seconds, turnaround, money.train_usd),
    )


def _per_usd(train_seconds: float, turnaround: float, train_usd: float | None) -> float | None:
    """None where the price is unknown, and where a run costs nothing."""
    if not train_usd or not train_seconds:
        return None
    return train_seconds / (train_usd * turnaround)
