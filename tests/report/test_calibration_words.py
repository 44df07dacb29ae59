"""A calibration in words: what was timed, beside what was predicted, and what was stored."""

from rankwise.records.ledger import Calibration, Timing
from rankwise.report.calibration_words import HEADS, kept_sentence, timing_line, timing_row

STEP = Timing(quantity="step", what="a step", seconds=1.5, spread=(1.4, 1.9), repeats=20, predicted=2.0)
MERGE = Timing(quantity="merge", what="a merge", seconds=3.0, spread=(3.0, 3.0), repeats=1, predicted=None)
FOUND = Calibration(
    at="2026-11-22T10:00:00.000+00:00",
    device="a processor (2 cores)",
    family="adapter",
    model="embedded",
    weights="real",
    timings=(STEP, MERGE),
    entries=1,
)


def test_a_row_has_a_cell_for_each_head() -> None:
    assert timing_row(STEP) == ("a step", "2 s", "1.5 s", "1.4 to 1.9 s", "0.75")
    assert timing_row(MERGE) == ("a merge", "unknown", "3 s", "once", "unknown")
    assert len(timing_row(STEP)) == len(HEADS)


def test_a_line_says_both_and_the_factor_or_that_there_is_none() -> None:
    assert timing_line(STEP) == "calibrated: a step took 1.5 s, 2 s by formula: factor 0.75"
    assert "knows no rate" in timing_line(MERGE) and "factor" not in timing_line(MERGE)


def test_what_was_stored_is_said_and_whether_weights_were_real() -> None:
    assert kept_sentence(FOUND) == "Stored 1 factor for adapter methods on a processor (2 cores)."
    random = FOUND.model_copy(update={"weights": "random", "entries": 4})
    assert "4 factors" in kept_sentence(random) and "random weights" in kept_sentence(random)
    assert kept_sentence(FOUND.model_copy(update={"entries": 0})).startswith("Nothing was stored")
