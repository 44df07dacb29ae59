"""From what came of each way of asking to a conclusion: every branch of the rule, and its intervals."""

from typing import Any, cast

import numpy as np
import pytest

from rankwise.evaluate.asking import Asked, Way
from rankwise.evaluate.conclude import CLOSED_LOSS, MANNER, OWN_FACTS, Verdict, above, conclude
from rankwise.evaluate.findings import Facts, Inquiry, Question, Told
from rankwise.records.job import AnswerFormat
from rankwise.text.probes import Probe

ROWS, TOKENS, OWN = 40, 20, 4  # the first four tokens of an answer are names of its own
WAYS = [Way("zero-shot", 0), Way("few-shot-8", 8), Way("with-source", 8, source=True)]
REGEX = AnswerFormat(regex=".*")
QUESTION = Question(Asked((), "a", 0, "source"), Probe("q", "a", (), 1), otherwise=True)


def losses(own: float, rest: float, seed: int, noise: float = 0.05) -> list[np.ndarray]:
    """Nats of ROWS answers: `own` on names, `rest` on the other tokens, with a little noise between rows."""
    draw = np.random.default_rng(seed)
    level = np.array([own] * OWN + [rest] * (TOKENS - OWN))
    return [level * (1 + noise * draw.standard_normal()) for _ in range(ROWS)]


def judged(
    zero: Told,
    shown: Told,
    source: Told | None,
    *,
    own: int = OWN,
    stated: AnswerFormat | None = None,
    questions: int = 0,
) -> Verdict:
    ways = WAYS if source else WAYS[:2]
    told = dict(zip([w.name for w in ways], [t for t in (zero, shown, source) if t], strict=True))
    asked = [Asked((), "a", 0, "source")] * ROWS
    inquiry = Inquiry(cast(Any, None), asked, [QUESTION] * questions, None, TOKENS, [""] * ROWS, told)
    marks = [np.array([i < own for i in range(TOKENS)])] * ROWS
    return conclude(inquiry, Facts(marks, marks), ways, stated)


def told(own: float, rest: float, seed: int = 0, **more: Any) -> Told:
    return Told(losses=losses(own, rest, seed), **more)


def test_style_examples_close_the_loss_and_no_row_has_facts_of_its_own() -> None:
    verdict = judged(told(3, 3), told(1, 1), told(1, 1), own=0)
    assert verdict.conclusion == "style"
    assert verdict.behaviour is not None and verdict.behaviour.value == pytest.approx(2 / 3, abs=0.02)
    assert verdict.knowledge is None and any("no facts of their own" in r for r in verdict.reasons)


def test_knowledge_examples_change_nothing_and_the_source_closes_the_names() -> None:
    verdict = judged(told(4, 2), told(3.9, 1.95), told(2, 1.95))
    assert verdict.conclusion == "knowledge"
    assert verdict.knowledge is not None and verdict.knowledge.value == pytest.approx(1.9 / 4, abs=0.02)


def test_both_examples_close_wording_and_the_source_closes_names() -> None:
    assert judged(told(4, 4), told(3, 1), told(1, 1)).conclusion == "both"


def test_knowledge_alone_when_a_prompt_already_closes_the_wording() -> None:
    assert judged(told(4, 4), told(3, 0.03), told(1, 0.03)).conclusion == "knowledge"


def test_prompting_when_the_wording_is_closed_and_nothing_else_is_lacking() -> None:
    assert judged(told(3, 3), told(0.02, 0.02), told(0.02, 0.02), own=0).conclusion == "prompting"


def test_cannot_tell_when_nothing_in_a_prompt_changes_anything() -> None:
    verdict = judged(told(2, 2), told(2, 2), told(2, 2))
    assert verdict.conclusion == "cannot tell" and len(verdict.would_tell) == 2


def test_cannot_tell_when_the_interval_covers_the_threshold() -> None:
    wide = Told(losses=losses(3, 3, 5, noise=3.0))
    verdict = judged(told(3, 3, 1), wide, wide, own=0)
    assert verdict.conclusion == "cannot tell"
    assert "more held-out rows" in verdict.would_tell[0]


def test_without_examples_or_sources_nothing_is_claimed() -> None:
    zero = told(3, 3)
    inquiry = Inquiry(
        cast(Any, None), [Asked((), "a", 0, None)] * ROWS, [], None, TOKENS, [""] * ROWS, {"zero-shot": zero}
    )
    marks = [np.array([i < OWN for i in range(TOKENS)])] * ROWS
    verdict = conclude(inquiry, Facts(marks, marks), WAYS[:1], None)
    assert verdict.conclusion == "cannot tell" and verdict.behaviour is None and verdict.knowledge is None


@pytest.mark.parametrize(
    ("zero", "shown", "conclusion"),
    [(0, 10, "style"), (0, 40, "prompting"), (40, 40, "prompting"), (0, 35, "cannot tell"), (35, 40, "cannot tell")],
)
def test_a_stated_format_is_judged_by_answers(zero: int, shown: int, conclusion: str) -> None:
    def formed(count: int) -> Told:
        return told(1, 1, formed=[i < count for i in range(ROWS)], same=[False] * ROWS)

    verdict = judged(formed(zero), formed(shown), formed(shown), own=0, stated=REGEX)
    assert verdict.conclusion == conclusion, verdict.reasons


@pytest.mark.parametrize(("closed", "open_", "conclusion"), [(0, 28, "knowledge"), (1, 2, "style"), (30, 30, "style")])
def test_taught_questions_decide_about_knowledge(closed: int, open_: int, conclusion: str) -> None:
    def right(count: int) -> list[bool | None]:
        return [i < count for i in range(32)]

    zero, shown = told(4, 4, right=right(0)), told(3, 2, right=right(closed))
    verdict = judged(zero, shown, told(1, 2, right=right(open_)), questions=32)
    assert verdict.conclusion == conclusion, verdict.reasons
    assert verdict.knowledge is not None and verdict.knowledge.value == pytest.approx((open_ - closed) / 32)


def test_questions_that_the_data_does_not_teach_say_nothing_about_it() -> None:
    untaught: list[bool | None] = [None] * 32
    verdict = judged(
        told(3, 3, right=[False] * 32), told(1, 1, right=[False] * 32), told(1, 1, right=untaught), own=0, questions=32
    )
    assert verdict.conclusion == "style"


def test_both_when_facts_are_lacking_and_the_stated_format_stays_open() -> None:
    def one(well: int, right: int) -> Told:
        return told(
            3, 3, formed=[i < well for i in range(ROWS)], same=[False] * ROWS, right=[i < right for i in range(32)]
        )

    assert judged(one(0, 0), one(8, 0), one(8, 30), stated=REGEX, questions=32).conclusion == "both"
    assert judged(one(0, 0), one(40, 0), one(40, 30), stated=REGEX, questions=32).conclusion == "knowledge"


@pytest.mark.parametrize(
    ("interval", "answer"),
    [((0.3, 0.4), "yes"), ((0.0, 0.1), "no"), ((0.1, 0.3), "cannot tell"), ((0.2, 0.3), "cannot tell")],
)
def test_above(interval: tuple[float, float], answer: str) -> None:
    assert above(interval, 0.2) == answer


def test_every_reason_has_its_number_interval_and_threshold() -> None:
    verdict = judged(told(4, 4), told(3, 1), told(1, 1))
    assert len(verdict.reasons) == 3
    assert all("95 %" in reason and "threshold" in reason for reason in verdict.reasons)
    assert f"threshold {MANNER * 100:.0f} %" in verdict.reasons[1]
    assert f"threshold {OWN_FACTS * 100:.0f} %" in verdict.reasons[0]
    assert str(CLOSED_LOSS) in verdict.reasons[2]
