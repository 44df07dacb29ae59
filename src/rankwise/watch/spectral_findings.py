"""Findings from the spectra of what trained: each a pure function of plan and events -> Finding or None.

A spectrum alone decides nothing: noise fills ranks as learning does, and a task that needs one direction is no fault.
So these are warnings, but for a run in which nothing trained or in which updates outgrew the weights; what a rank is
worth is told by `rankwise watch --truncate`.
"""

from collections.abc import Sequence

from rankwise.records import Event, Finding, Plan, SpectrumSeen
from rankwise.watch.raised import Rule, raised
from rankwise.watch.spectra import point

# Share of an update's energy in its first direction from which it is called collapsed, and the ranks that can be.
COLLAPSED, WIDE = 0.9, 4
# Median norm of updates over that of their weights: ten times that of sound LoRA runs here (docs/spectrum.md), and one.
LARGE, OUTGROWN = 0.1, 1.0


def _last(events: Sequence[Event]) -> SpectrumSeen | None:
    return next((e for e in reversed(events) if isinstance(e, SpectrumSeen) and e.modules), None)


def _at(step: int) -> str:
    """Weights of others may come without their step."""
    return f" at step {step}" if step else ""


def dead_modules(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """Matrices that an optimizer was given and that are what they were."""
    seen = _last(events)
    dead = [m.module for m in seen.modules if m.norm == 0] if seen else []
    if seen is None or not dead:
        return None
    named = ", ".join(dead[:3]) + (f" and {len(dead) - 3} more" if len(dead) > 3 else "")
    every = len(dead) == len(seen.modules)
    return raised(
        name="dead_modules",
        level="fault" if every else "warning",
        text="Nothing that was to train has changed."
        if every
        else f"Parts that were to train did not change: {named}.",
        number=f"{len(dead)} of {len(seen.modules)} matrices with an update of zero{_at(seen.step)}",
        advice="look at the learning rate and at what is frozen; does any loss reach these modules?",
    )


def rank_collapse(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """Most updates have become one direction, whatever rank they were given."""
    seen = _last(events)
    wide = [m for m in seen.modules if m.rank >= WIDE and m.first_energy is not None] if seen else []
    collapsed = [m for m in wide if (m.first_energy or 0) > COLLAPSED]
    if seen is None or 2 * len(collapsed) <= len(wide):
        return None
    rank = max(m.rank for m in wide)
    return raised(
        name="rank_collapse",
        level="warning",
        text="Most updates are one direction and little else: the rank is not used.",
        number=f"{len(collapsed)} of {len(wide)} matrices with over {COLLAPSED:.0%} of their energy in the first of up "
        f"to {rank} directions{_at(seen.step)}",
        advice="lower the learning rate to a third, or the rank; `rankwise watch RUN --truncate` shows how much of the "
        "gain a lower rank keeps",
    )


def large_updates(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """Updates that are large beside the weights that they are added to."""
    seen = _last(events)
    ratio = point(seen.step, seen.modules).norm_ratio if seen else None
    if seen is None or ratio is None or ratio <= LARGE:
        return None
    worst = max((m.norm_ratio or 0, m.module) for m in seen.modules)
    return raised(
        name="large_updates",
        level="fault" if ratio > OUTGROWN else "warning",
        text=(
            "Updates are larger than the weights that they are added to: little of the base is left."
            if ratio > OUTGROWN
            else "Updates are large beside the weights that they are added to."
        ),
        number=f"median {ratio:.2g} of the weight's norm, largest {worst[0]:.2g} ({worst[1]}){_at(seen.step)}",
        advice="lower the learning rate to a third, or alpha, which acts as one; measure general loss",
    )


def intruder_directions(plan: Plan | None, events: Sequence[Event]) -> Finding | None:
    """Strong directions that the base does not have: one and more a matrix, or more of them than before."""
    seen = [e for e in events if isinstance(e, SpectrumSeen) and e.modules]
    points = [p for e in seen if (p := point(e.step, e.modules)).intruders is not None]
    if not points:
        return None
    matrices = sum(m.intruders is not None for m in seen[-1].modules)
    first, last = points[0].intruders or 0, points[-1].intruders or 0
    grew = len(points) > 1 and last > first
    if last == 0 or not (grew or last >= matrices):
        return None
    return raised(
        name="intruder_directions",
        level="warning",
        text="Training "
        + ("adds more and more" if grew else "added")
        + " strong directions that lie far from all of the base's; such intruders go with forgetting.",
        number=(f"{first} -> {last}" if grew else f"{last}") + f" in {matrices} matrices{_at(points[-1].step)}",
        advice="lower the learning rate or raise the rank, mix general rows in, and measure general loss",
    )


SPECTRAL_FINDINGS: tuple[Rule, ...] = (
    dead_modules,
    rank_collapse,
    large_updates,
    intruder_directions,
)
