"""Findings of resources: time and memory against the plan's intervals."""

from collections.abc import Sequence

from rankwise.records import Event, Finding, Finished, Plan, Rehearsed, Step
from rankwise.watch.raised import raised, steps_of

FEWEST = 3  # steps after the first, which is slower than all others, before which speed is no speed
GB = 1e9


def speed(steps: Sequence[Step]) -> float | None:
    """Tokens per second over all steps but the first, which warms up; None before there are FEWEST."""
    counted = steps[1:]
    seconds = sum(s.seconds for s in counted)
    return sum(s.tokens for s in counted) / seconds if len(counted) >= FEWEST and seconds > 0 else None


def planned_speed(plan: Plan | None) -> tuple[float, tuple[float, float]] | None:
    """Tokens per second of the call, and the interval that follows from that of its durations; None: not predicted."""
    estimate = plan.chosen() if plan else None
    if estimate is None or estimate.time.tokens_per_second is None or estimate.time.relative is None:
        return None
    predicted, (low, high) = estimate.time.tokens_per_second, estimate.time.relative
    return predicted, (predicted / high, predicted / low)


def slower_than_planned(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """Fewer tokens per second than the lower end of the plan's interval."""
    planned, found = planned_speed(plan), speed(steps_of(events))
    if planned is None or found is None or found >= planned[1][0]:
        return None
    expected, (low, high) = planned
    return raised(
        "slower_than_planned",
        "warning",
        "Training is slower than the plan's interval allows.",
        f"{found:,.0f} tokens/s, planned {expected:,.0f} tokens/s ({low:,.0f} to {high:,.0f})",
        "is something else using this machine? `rankwise estimate --calibrate` measures it again",
    )


def more_memory_than_planned(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """The process needed more memory than the upper end of the plan's interval: seen after the first step, when the
    largest batch was tried, and at the end.
    """
    estimate = plan.chosen() if plan else None
    peak = peak_memory(events)
    if estimate is None or peak is None or peak <= estimate.memory.interval[1]:
        return None
    low, high = (end / GB for end in estimate.memory.interval)
    return raised(
        "more_memory_than_planned",
        "warning",
        "The run needs more memory than the plan's interval allows.",
        f"{peak / GB:.2f} GB, planned {estimate.memory.peak_device / GB:.2f} GB ({low:.2f} to {high:.2f})",
        "keep this margin in mind for a longer max_length",
    )


def peak_memory(events: Sequence[Event]) -> int | None:
    """The highest peak that the process has told of, in bytes."""
    told = (e.peak_memory_bytes for e in events if isinstance(e, Rehearsed | Finished))
    return max((peak for peak in told if peak is not None), default=None)
