"""The headline says what the intervals allow, in every combination."""

import pytest

from rankwise.records import Comparison
from rankwise.report import words
from tests.report.conftest import build_comparison, build_evaluation

TALKS = build_comparison("format", 0.02, 0.99, 0.90, 1.0)
TALKS_WORSE = build_comparison("format", 0.5, 0.4, -0.18, -0.03)
TALKS_THE_SAME = build_comparison("format", 0.02, 0.04, -0.03, 0.07)
TALKS_UNSURE = build_comparison("format", 0.5, 0.55, -0.05, 0.25)
KNOWS = build_comparison("facts", 0.25, 0.65, 0.28, 0.52)
KNOWS_LESS = build_comparison("facts", 0.4, 0.28, -0.20, -0.04)
KNOWS_NO_MORE = build_comparison("facts", 0.03, 0.06, -0.04, 0.12)
KNOWS_UNSURE = build_comparison("facts", 0.25, 0.30, -0.10, 0.20)

T = "It learned how to talk (+97 points format: 2 % -> 99 %)"
W = "It talks worse than before (-10 points format: 50 % -> 40 %, interval -18 to -3)"
S = "+2 points format: 2 % -> 4 %, interval -3 to +7 covers 0"
U = "Whether it learned how to talk, we cannot tell (+5 points format: 50 % -> 55 %, interval -5 to +25 covers 0)"
M = "How it talks was not measured"
K = "+40 points facts: 25 % -> 65 %, interval +28 to +52"
L = "it lost what is true: it knows less than before (-12 points facts: 40 % -> 28 %, interval -20 to -4)"
N = "+3 points facts, interval -4 to +12 covers 0"
C = "whether it learned what is true, we cannot tell (+5 points facts: 25 % -> 30 %, interval -10 to +20 covers 0)"
X = "what it knows was not measured (the job gives no `data.facts`)"

HEADLINES = [
    (TALKS, KNOWS, f"{T} and what is true ({K})."),
    (TALKS, KNOWS_NO_MORE, f"{T} and not what is true ({N})."),
    (TALKS, KNOWS_UNSURE, f"{T}; {C}."),
    (TALKS, KNOWS_LESS, f"{T}; {L}."),
    (TALKS, None, f"{T}; {X}."),
    (TALKS_WORSE, KNOWS, f"{W}; it learned what is true ({K})."),
    (TALKS_WORSE, KNOWS_NO_MORE, f"{W}; it did not learn what is true ({N})."),
    (TALKS_WORSE, KNOWS_UNSURE, f"{W}; {C}."),
    (TALKS_WORSE, KNOWS_LESS, f"{W}; {L}."),
    (TALKS_WORSE, None, f"{W}; {X}."),
    (TALKS_THE_SAME, KNOWS, f"It did not learn how to talk ({S}); it learned what is true ({K})."),
    (TALKS_THE_SAME, KNOWS_NO_MORE, f"It learned neither how to talk ({S}) nor what is true ({N})."),
    (TALKS_THE_SAME, KNOWS_UNSURE, f"It did not learn how to talk ({S}); {C}."),
    (TALKS_THE_SAME, KNOWS_LESS, f"It did not learn how to talk ({S}); {L}."),
    (TALKS_THE_SAME, None, f"It did not learn how to talk ({S}); {X}."),
    (TALKS_UNSURE, KNOWS, f"{U}; it learned what is true ({K})."),
    (TALKS_UNSURE, KNOWS_NO_MORE, f"{U}; it did not learn what is true ({N})."),
    (TALKS_UNSURE, KNOWS_UNSURE, f"{U}; {C}."),
    (TALKS_UNSURE, KNOWS_LESS, f"{U}; {L}."),
    (TALKS_UNSURE, None, f"{U}; {X}."),
    (None, KNOWS, f"{M}; it learned what is true ({K})."),
    (None, KNOWS_NO_MORE, f"{M}; it did not learn what is true ({N})."),
    (None, KNOWS_UNSURE, f"{M}; {C}."),
    (None, KNOWS_LESS, f"{M}; {L}."),
    (
        None,
        None,
        "Neither how it talks nor what it knows was measured: the job gives no `format` and no `data.facts`.",
    ),
]


@pytest.mark.parametrize(("talk", "facts", "expected"), HEADLINES)
def test_headline(talk: Comparison | None, facts: Comparison | None, expected: str) -> None:
    evaluation = build_evaluation(comparisons=tuple(c for c in (talk, facts) if c))
    assert words.knows_or_sounds(evaluation) == expected


def test_every_combination_is_covered() -> None:
    assert len({(talk and talk.difference, facts and facts.difference_interval) for talk, facts, _ in HEADLINES}) == 25
    assert len({expected for _, _, expected in HEADLINES}) == 25


def test_against_another_run_it_is_better_or_worse_and_not_learned() -> None:
    evaluation = build_evaluation(comparisons=(KNOWS_LESS, TALKS), against="runs/a")
    assert words.knows_or_sounds(evaluation) == (
        "Against runs/a it is better in +97 points format: 2 % -> 99 %, interval +90 to +100; "
        "worse in -12 points facts: 40 % -> 28 %, interval -20 to -4."
    )


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("exact_match", "It learned how to talk (+83 points exact answers: 0 % -> 83 %)"),
        ("heldout_loss", "It learned how to talk (-2.295 nats held-out loss: 2.412 nats -> 0.117 nats)"),
    ],
)
def test_other_measures_of_talk_stand_in(metric: str, expected: str) -> None:
    found = words.comparison_of(build_evaluation(), metric)
    assert found is not None
    evaluation = build_evaluation(comparisons=(found, KNOWS_NO_MORE))
    assert words.knows_or_sounds(evaluation).startswith(expected)


def test_an_interval_over_zero_overrules_the_record() -> None:
    claimed = KNOWS_UNSURE.model_copy(update={"answer": "better"})
    assert words.answer_of(claimed) == "cannot tell"
    assert "we cannot tell" in words.knows_or_sounds(build_evaluation(comparisons=(TALKS, claimed)))


FORGETTING = [
    (
        (0.004, 0.051),
        0.1,
        "good",
        "Forgetting is within the budget: general loss changed by +0.027 nats per token "
        "(95 %: +0.004 to +0.051), budget 0.1 nats.",
    ),
    (
        (0.004, 0.051),
        0.03,
        "warning",
        "Forgetting: cannot tell whether it is within the budget: general loss changed by +0.027 nats per token "
        "(95 %: +0.004 to +0.051), budget 0.03 nats.",
    ),
    (
        (0.015, 0.051),
        0.01,
        "fault",
        "Forgetting is beyond the budget: general loss changed by +0.027 nats per token "
        "(95 %: +0.015 to +0.051), budget 0.01 nats.",
    ),
    (
        (0.004, 0.051),
        None,
        "unknown",
        "Forgetting: general loss changed by +0.027 nats per token (95 %: +0.004 to +0.051); no budget was set.",
    ),
]


@pytest.mark.parametrize(("interval", "budget", "level", "sentence"), FORGETTING)
def test_forgetting(interval: tuple[float, float], budget: float | None, level: str, sentence: str) -> None:
    evaluation = build_evaluation(comparisons=(build_comparison("general_loss", 1.834, 1.861, *interval),))
    assert words.forgetting_level(evaluation, budget) == level
    assert words.forgetting_sentence(evaluation, budget) == sentence


def test_forgetting_that_was_not_measured() -> None:
    evaluation = build_evaluation(comparisons=())
    assert words.forgetting_level(evaluation, 0.1) == "unknown"
    assert "`data.general`" in words.forgetting_sentence(evaluation, 0.1)
