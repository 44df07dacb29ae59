"""What the page shows of the watches of a run: the slices at the end, what was done about them, the largest updates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.records import Acted, Event, Evidence, ModuleSpectrum, Slice, SpectrumSeen, Watched
from rankwise.report.event_words import event_line
from rankwise.report.forgetting_charts import forgetting_figure, frontier_figure
from rankwise.report.spectrum_charts import growth_figure, spectrum_figure

MOST_MODULES = 20  # rows of the table: those whose update is largest


@dataclass(frozen=True)
class WatchView:
    """The last state of each watch; nothing of a watch that was not made.

    Attributes:
        watched: the last look at general ability.
        worst: the step at which each slice was worst, by name and metric.
        acted: what was done, as sentences.
        modules: of the last spectra, those with the largest updates.
        matrices: how many there are.
    """

    watched: Watched | None
    worst: dict[tuple[str, str], tuple[int, Slice]]
    acted: tuple[str, ...]
    spectrum: SpectrumSeen | None
    modules: tuple[ModuleSpectrum, ...]

    @property
    def matrices(self) -> int:
        return len(self.spectrum.modules) if self.spectrum else 0


def watch_view(events: Sequence[Event]) -> WatchView:
    seen = [e for e in events if isinstance(e, Watched)]
    spectrum = next((e for e in reversed(events) if isinstance(e, SpectrumSeen)), None)
    return WatchView(
        watched=seen[-1] if seen else None,
        worst=_worst(seen),
        acted=tuple(event_line(e, 0) for e in events if isinstance(e, Acted)),
        spectrum=spectrum,
        modules=_largest(spectrum.modules) if spectrum else (),
    )


def _worst(seen: Sequence[Watched]) -> dict[tuple[str, str], tuple[int, Slice]]:
    """A loss is worst where it rose most, a share where it fell most."""
    found: dict[tuple[str, str], tuple[int, Slice]] = {}
    for watched in seen:
        for part in watched.slices:
            known = found.get((part.name, part.metric))
            if known is None or _harm(part) > _harm(known[1]):
                found[part.name, part.metric] = (watched.step, part)
    return found


def _harm(part: Slice) -> float:
    return -part.difference if part.unit == "share" else part.difference


def _largest(modules: Sequence[ModuleSpectrum]) -> tuple[ModuleSpectrum, ...]:
    """By their norm over the weight's where that is known, else by their norm."""
    return tuple(sorted(modules, key=lambda m: (m.norm_ratio or 0.0, m.norm), reverse=True)[:MOST_MODULES])


def watch_figures(events: Sequence[Event], evidence: Evidence | None = None) -> dict[str, dict[str, Any]]:
    """Plotly figures by the id that the page names them with; what nothing is known of is left out."""
    forgotten = evidence.forgetting if evidence else None
    figures = {
        "forgetting-data": forgetting_figure(events, forgotten.thresholds if forgotten else ()),
        "frontier-data": frontier_figure(events),
        "spectrum-data": spectrum_figure(events),
        "growth-data": growth_figure(events),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}
