"""The findings: each a pure function of plan and events -> Finding or None, explained in docs/findings.md."""

from collections.abc import Sequence

from rankwise.records import Event, Finding, Plan
from rankwise.watch.forgotten import drifting, forgot
from rankwise.watch.learning import (
    diverging,
    learned,
    loss_at_zero,
    names_and_numbers,
    overfitting,
    underfitting_at_capacity,
)
from rankwise.watch.raised import Rule
from rankwise.watch.rates import effective_rate, gradient_spikes, scaling_changed
from rankwise.watch.resources import more_memory_than_planned, slower_than_planned
from rankwise.watch.spectral_findings import SPECTRAL_FINDINGS

# In the order in which they are told. A new one is a line here, and a section of the same name in docs/findings.md.
FINDINGS: tuple[Rule, ...] = (
    loss_at_zero,
    diverging,
    learned,
    overfitting,
    forgot,
    drifting,
    underfitting_at_capacity,
    names_and_numbers,
    scaling_changed,
    effective_rate,
    gradient_spikes,
    slower_than_planned,
    more_memory_than_planned,
    *SPECTRAL_FINDINGS,
)


def find(plan: Plan | None, events: Sequence[Event]) -> list[Finding]:
    """All findings that hold, in the order of FINDINGS. Without a plan (a run made by others) those that need none."""
    found = (finding(plan, events) for finding in FINDINGS)
    return [f for f in found if f is not None]
