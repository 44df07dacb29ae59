"""What a calibration measured, beside what was predicted, in a row, a line and a sentence."""

from rankwise.records.ledger import Calibration, Timing
from rankwise.report.quantities import duration, duration_range, plain

HEADS = ("timed", "predicted by formula", "measured", "fastest to slowest", "factor")


def timing_row(timing: Timing) -> tuple[str, str, str, str, str]:
    """What, predicted, measured, spread, measured / predicted."""
    predicted = "unknown" if timing.predicted is None else duration(timing.predicted)
    spread = duration_range(timing.spread) if timing.repeats > 1 else "once"
    return timing.what, predicted, duration(timing.seconds), spread, _factor(timing)


def timing_line(timing: Timing) -> str:
    """calibrated: an optimizer step of 4 rows x 95 tokens took 1.36 s, 1.82 s by formula: factor 0.749."""
    if timing.predicted is None:
        return f"timed: {timing.what} took {duration(timing.seconds)}; the formula knows no rate of this device"
    return (
        f"calibrated: {timing.what} took {duration(timing.seconds)}, {duration(timing.predicted)} by formula: "
        f"factor {_factor(timing)}"
    )


def kept_sentence(found: Calibration) -> str:
    """How many factors were stored, for what."""
    weights = "" if found.weights == "real" else " (random weights: those of this model are not on this machine)"
    if not found.entries:
        return f"Nothing was stored: the ledger is off, or no rate of {found.device} is known{weights}."
    many = f"{found.entries} factor{'s' * (found.entries > 1)}"
    return f"Stored {many} for {found.family} methods on {found.device}{weights}."


def _factor(timing: Timing) -> str:
    return "unknown" if timing.factor is None else plain(timing.factor)
