"""Predicted against measured throughput: each source by efficiencies that were fitted without it, and by all rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.time.fit import Fit, Measured, fit, throughput
from rankwise.estimate.efficiency import generation
from rankwise.estimate.memory import family

ENOUGH = 12  # rows that an interval rests on
LOW, HIGH = 0.05, 0.95
Pairs = Sequence[Mapping[str, Any]]


def folds(rows: Sequence[Measured]) -> dict[str, Fit]:
    """Source -> the fit to all other sources."""
    sources = sorted({row.case.row.source for row in rows})
    return {source: fit([row for row in rows if row.case.row.source != source]) for source in sources}


def pairs(rows: Sequence[Measured], without: Mapping[str, Fit], whole: Fit) -> list[dict[str, Any]]:
    """One line a measurement: tokens per second over all devices, measured and predicted."""
    found = []
    for row in rows:
        case, setup = row.case, row.case.setup
        own = without[case.row.source]
        others = [r for r in rows if r.case.row.source != case.row.source]
        held_out, fitted, measured = throughput(row, own), throughput(row, whole), case.row.measured
        assert held_out and fitted and measured
        found.append(
            {
                "id": case.row.id,
                "source": case.row.source,
                "grade": case.row.grade,
                "gpu": case.gpu,
                "gpus": setup.world_size,
                "method": setup.method,
                "family": family(setup.method),
                "options": case.row.options,
                "measured": measured,
                "predicted": held_out,
                "error": held_out / measured - 1,
                "predicted_in_sample": fitted,
                "error_in_sample": fitted / measured - 1,
                "generation": generation(row.device),
                "generation_seen": any(generation(r.device) == generation(row.device) for r in others),
                "note": case.row.note,
            }
        )
    return found


def metrics(found: Pairs) -> dict[str, float]:
    """Flat names; the first two are those of the contract."""
    errors = [row["error"] for row in found]
    made: dict[str, float] = {
        "median_abs_error_out_of_sample": median(map(abs, errors)),
        "rows": len(found),
        "median_abs_error_in_sample": median(abs(row["error_in_sample"]) for row in found),
        "p90_abs_error_out_of_sample": float(np.quantile(np.abs(errors), 0.9)),
        "median_error_out_of_sample": median(errors),
        "median_of_source_medians": median(
            median(abs(r["error"]) for r in found if r["source"] == source) for source in {r["source"] for r in found}
        ),
    }
    for grade in sorted({row["grade"] for row in found}):
        of = [abs(row["error"]) for row in found if row["grade"] == grade]
        made |= {f"median_abs_error_out_of_sample_{grade.lower()}": median(of), f"rows_{grade.lower()}": len(of)}
    return made


def median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def intervals(found: Pairs) -> dict[str, dict[str, tuple[float, float, int]]]:
    """seen | unseen -> family or `any` -> low and high of actual / predicted duration, and the rows behind them.

    From predictions out of sample; `unseen`: of architectures that no other source had.
    """
    made: dict[str, dict[str, tuple[float, float, int]]] = {"seen": {}, "unseen": {}}
    for name, wanted in (("seen", True), ("unseen", False)):
        of = [row for row in found if row["generation_seen"] is wanted]
        for kind in ("any", "full", "adapter", "quantised"):
            ratios = [row["predicted"] / row["measured"] for row in of if kind in ("any", row["family"])]
            if kind == "any" or len(ratios) >= ENOUGH:
                low, high = np.quantile(ratios, (LOW, HIGH)) if ratios else (0.5, 2.0)
                made[name][kind] = (float(low), float(high), len(ratios))
    return made
