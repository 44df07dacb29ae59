"""What `rankwise doctor` found, as rows of tables and sentences."""

from rankwise.records.selfcheck import Compared, Condition, SelfCheck
from rankwise.report.quantities import size

CONDITION_HEADS = ("", "what", "found", "note")
STEP_HEADS = (
    "step",
    "predicted",
    "allocated",
    "error",
    "reserved, predicted",
    "reserved",
    "error",
    "context",
    "predicted s",
    "s",
)
MARKS = {True: "ok", False: "WRONG", None: "-"}


def condition_row(found: Condition) -> tuple[str, str, str, str]:
    return MARKS[found.ok], found.name, found.value, found.note


def step_row(row: Compared) -> tuple[str, ...]:
    """A step that did not run has its error in place of the figures."""
    name = f"{row.model}: {row.id}"
    if row.measured is None:
        return (name, size(row.predicted_allocated), row.error or "", *[""] * (len(STEP_HEADS) - 3))
    measured = row.measured
    return (
        name,
        size(row.predicted_allocated),
        size(measured.peak_allocated),
        _share(row.allocated_error),
        _size(row.predicted_reserved),
        _size(measured.peak_reserved),
        _share(row.reserved_error),
        _size(measured.context_bytes),
        _seconds(row.predicted_seconds),
        _seconds(measured.step_seconds),
    )


def self_check_sentence(found: SelfCheck) -> str:
    """How far the traces were from the steps, over all rows that ran."""
    errors = sorted(abs(r.allocated_error) for r in found.rows if r.allocated_error is not None)
    if not errors:
        return f"None of {len(found.rows)} steps ran on {found.device_name}."
    ran = f"{len(errors)} of {len(found.rows)} steps ran on {found.device_name}"
    half = errors[len(errors) // 2]
    return f"{ran}; allocated bytes were predicted within {errors[-1]:.2%}, half of them within {half:.2%}."


def _size(count: int | None) -> str:
    return "-" if count is None else size(count)


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:+.2%}"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.3f}"
