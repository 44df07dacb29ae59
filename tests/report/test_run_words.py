"""What a run says at its end, line by line."""

import pytest

from rankwise.records import Check, Finding
from rankwise.report import words
from tests.report.conftest import build_actual, build_evidence, build_verification


def test_outcome_of_a_whole_run() -> None:
    lines = words.outcome_lines(build_evidence(), build_verification(), budget_nats=0.1, folder="runs/a")
    assert lines == [
        "Of 6 facts the untouched base knew none, so there was none to lose.",
        "Confident and wrong: 53 % of its answers to closed-book questions are wrong at a mean probability of 70 % or "
        "more (before: 3 %).",
        "Forgetting is within the budget: general loss changed by +0.027 nats per token "
        "(95 %: +0.004 to +0.051), budget 0.1 nats.",
        "Trained 30 of 30 steps on 21,840 tokens in 1 min 58 s: loss 2.087 -> 0.099 nats.",
        "Validation loss 2.412 -> 0.117 nats; best 0.117 nats at step 30.",
        "Proven: 3 of 3 checks of the saved files passed, in 12 s.",
    ]


def test_outcome_where_everything_is_missing() -> None:
    names = ("first_loss", "final_loss", "base_validation_loss", "best_validation_loss", "best_validation_step")
    nothing = dict.fromkeys((*names, "final_validation_loss", "train_seconds", "evaluation"))
    lines = words.outcome_lines(build_evidence(**nothing), None, folder="my runs/a")
    assert lines == [
        "What it learned is not measured yet: `rankwise eval 'my runs/a'` does it.",
        "Trained 30 of 30 steps on 21,840 tokens: loss unknown -> unknown.",
        "Validation loss was not measured.",
        "Not proven yet: `rankwise verify 'my runs/a'` checks the saved files.",
    ]


def test_a_failed_proof_is_said_and_named() -> None:
    sentence = words.proof_sentence(build_verification(passed=False))
    assert sentence == "NOT proven: 1 of 3 checks of the saved files failed: merged."


@pytest.mark.parametrize(
    ("quantity", "unit", "predicted", "interval", "actual", "expected"),
    [
        (
            "train_seconds",
            "seconds",
            130.0,
            (65.0, 260.0),
            118.0,
            "Training time: predicted 130 s (65 to 260), took 118 s: inside the interval",
        ),
        (
            "train_seconds",
            "s",
            1300.0,
            (650.0, 2600.0),
            3900.0,
            "Training time: predicted 21.7 min (10.8 to 43.3), took 65 min: "
            "OUTSIDE the interval, 3 times the prediction",
        ),
        (
            "peak_memory",
            "bytes",
            1.89e9,
            (1.65e9, 2.3e9),
            1.5e9,
            "Peak memory: predicted 1.89 GB (1.65 to 2.3), was 1.5 GB: "
            "OUTSIDE the interval, 21 % below the prediction",
        ),
        (
            "checkpoint",
            "bytes",
            29.4e6,
            None,
            31.2e6,
            "Checkpoint on disk: predicted 29.4 MB, was 31.2 MB: 6 % above the prediction, no interval was given",
        ),
        (
            "trainable_params",
            "parameters",
            2_442_240.0,
            None,
            2_442_240.0,
            "Trained parameters: predicted 2,442,240 parameters, was 2,442,240 parameters: "
            "as predicted, no interval was given",
        ),
        ("train_usd", "USD", 3.0, (2.0, 4.0), None, "Cost: predicted 3 USD (2 to 4), was unknown: not measured"),
        ("seen_before", "share", None, None, 0.5, "Seen before: predicted unknown, was 50 %: nothing was predicted"),
        ("gone", "bytes", 0.0, (0.0, 0.0), 5.0, "Gone: predicted 0 B (0 to 0), was 5 B: OUTSIDE the interval, "
         "0 was predicted"),
    ],
)  # fmt: skip
def test_predicted_beside_actual(
    quantity: str,
    unit: str,
    predicted: float | None,
    interval: tuple[float, float] | None,
    actual: float | None,
    expected: str,
) -> None:
    assert words.actual_line(build_actual(quantity, unit, predicted, interval, actual)) == expected


@pytest.mark.parametrize(
    ("level", "number", "advice", "expected"),
    [
        ("good", None, None, "ok: All is well."),
        ("warning", "0.012 nats", "Train longer.", "warning: All is well (0.012 nats). Train longer."),
        ("fault", "nan", None, "FAULT: All is well (nan)."),
    ],
)
def test_finding_line(level: str, number: str | None, advice: str | None, expected: str) -> None:
    finding = Finding(name="n", level=level, text="All is well", number=number, advice=advice)  # type: ignore[arg-type]
    assert words.finding_line(finding) == expected


@pytest.mark.parametrize(
    ("passed", "number", "limit", "expected"),
    [
        (True, "0 difference", "1e-5", "ok: reload. The same logits. 0 difference (limit 1e-5)."),
        (False, "3 difference", None, "FAILED: reload. The same logits. 3 difference."),
        (True, None, None, "ok: reload. The same logits."),
    ],
)
def test_check_line(passed: bool, number: str | None, limit: str | None, expected: str) -> None:
    check = Check(name="reload", passed=passed, number=number, limit=limit, text="The same logits.")
    assert words.check_line(check) == expected


STATES = {
    "planned": "Planned, not started. Start: `rankwise train runs/a/plan.json --out runs/a`",
    "running": "Running: step 12 of 30. Look again: `rankwise show runs/a`",
    "finished": "Finished: step 12 of 30. Talk to it: `rankwise chat runs/a`",
    "stopped": "Stopped at step 12 of 30. Continue: `rankwise train runs/a --resume`",
    "failed": "Failed at step 12 of 30. When the cause is mended: `rankwise train runs/a --resume`",
    "killed": "Killed at step 12 of 30: the process ended without a word. Continue: `rankwise train runs/a --resume`",
}


@pytest.mark.parametrize(("state", "expected"), STATES.items())
def test_state_and_the_next_command(state: str, expected: str) -> None:
    assert words.state_sentence(state, 12, 30, "runs/a") == expected


def test_an_unknown_state_or_step_is_said() -> None:
    assert words.state_sentence("odd", None, None, "a b") == (
        "State 'odd': step unknown of unknown. Look at it: `rankwise show 'a b'`"
    )
