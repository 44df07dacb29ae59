"""Ledger records: a line says all of itself, and nothing that cannot be is taken."""

from typing import Any

import pytest
from pydantic import ValidationError

from rankwise.records.ledger import LedgerEntry, Timing, Workload

WORK = Workload(method="lora", rows=4, length=95.0, dtype="bf16", setup_hash="a" * 64)
ENTRY: dict[str, Any] = {
    "at": "2026-11-22T10:00:00.000+00:00",
    "device": "a processor (2 cores)",
    "device_rate": "measured",
    "family": "adapter",
    "quantity": "step",
    "model": "embedded",
    "work": WORK,
    "predicted": 2.0,
    "corrected": 1.5,
    "actual": 1.4,
    "source": "run first",
    "formula": 1,
    "rankwise_version": "0.1.0",
}


def test_a_line_comes_back_as_it_went() -> None:
    entry = LedgerEntry(**ENTRY)
    line = entry.model_dump_json()
    assert "\n" not in line and LedgerEntry.model_validate_json(line) == entry


@pytest.mark.parametrize(
    "wrong",
    [
        {"actual": 0.0},
        {"predicted": -1.0},
        {"corrected": float("nan")},
        {"actual": float("inf")},
        {"quantity": "guess"},
        {"family": "lora"},
        {"version": 2},
        {"more": 1},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LedgerEntry(**(ENTRY | wrong))


def test_a_factor_is_measured_over_predicted_and_unknown_without_a_prediction() -> None:
    timing = Timing(quantity="step", what="a step", seconds=3.0, spread=(2.5, 4.0), repeats=20, predicted=2.0)
    assert timing.factor == 1.5
    assert timing.model_copy(update={"predicted": None}).factor is None
