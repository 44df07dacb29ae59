"""Spectra of a run -> a few numbers. Pure, and without torch."""

from collections.abc import Sequence
from math import sqrt
from statistics import median

from rankwise.records import Event, ModuleSpectrum, SpectrumPoint, SpectrumSeen, SpectrumSummary

KEPT = 32  # directions of a base's matrix
LOOKED = 10  # strongest directions of the tuned matrix
EPSILON = 0.6  # of the pilot in which effective ranks were first looked at (docs/spectrum.md)
SOURCE = "singular values of s B A by thin QR of B and A^T, of whole weights from their difference; medians"
INTRUDERS = (
    f"; intruders: of the {LOOKED} strongest left singular vectors of base plus update those whose largest |cos| to "
    f"the base's {KEPT} strongest is below {EPSILON} (after Shuttleworth et al. 2024, arXiv 2410.21228)"
)


def sum_up(events: Sequence[Event]) -> SpectrumSummary | None:
    """The spectra that events tell of; None where they tell of none."""
    seen = [e for e in events if isinstance(e, SpectrumSeen) and e.modules]
    if not seen:
        return None
    last = seen[-1].modules
    ratios = [(m.norm_ratio, m.module) for m in last if m.norm_ratio is not None]
    largest = max(ratios, default=(None, None))
    return SpectrumSummary(
        matrices=len(last),
        rank=max(m.rank for m in last),
        last=point(seen[-1].step, last),
        dead_modules=tuple(m.module for m in last if m.norm == 0),
        largest_ratio=largest[0],
        largest_ratio_module=largest[1],
        growth=tuple(point(e.step, e.modules) for e in seen),
        seconds=sum(e.seconds for e in seen),
        source=SOURCE + INTRUDERS * any(m.intruders is not None for m in last),
    )


def point(step: int, modules: Sequence[ModuleSpectrum]) -> SpectrumPoint:
    """All matrices at one step."""
    counted = [m.intruders for m in modules if m.intruders is not None]
    return SpectrumPoint(
        step=step,
        norm=sqrt(sum(m.norm**2 for m in modules)),
        norm_ratio=_median([m.norm_ratio for m in modules]),
        effective_rank=_median([m.effective_rank for m in modules]),
        first_energy=_median([m.first_energy for m in modules]),
        intruders=sum(counted) if counted else None,
        dead=sum(m.norm == 0 for m in modules),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
