"""What was lost, what is sure and wrong, what is required: sentences and lists of an evaluation."""

import pytest

from rankwise.records import Answer, Gate, Measurement, Tendency
from rankwise.report import words
from tests.report.conftest import build_comparison, build_evaluation


def fact(question: str, base_ok: bool, tuned_ok: bool, sure: float | None, kind: str = "fact") -> Answer:
    return Answer(
        kind=kind,  # type: ignore[arg-type]
        prompt=question,
        expected="35 mg",
        base="I do not know",
        tuned="It is\n40 mg",
        base_ok=base_ok,
        tuned_ok=tuned_ok,
        base_sure=0.2,
        tuned_sure=sure,
    )


ANSWERS = (
    fact("kept", True, True, 0.99),
    fact("lost", True, False, 0.6),
    fact("lost too", True, False, 0.8),
    fact("never known", False, False, 0.95),
    fact("just below", False, False, 0.69),
    fact("learned", False, True, 0.9),
    fact("silent", False, False, None),
    fact("in other words", True, False, 1.0, kind="paraphrase"),
)


def test_lost_facts_stand_in_the_order_of_the_file() -> None:
    assert [a.prompt for a in words.lost_facts(build_evaluation(answers=ANSWERS))] == ["lost", "lost too"]


def test_confident_and_wrong_begins_with_the_surest() -> None:
    found = words.confident_and_wrong(build_evaluation(answers=ANSWERS))
    assert [a.prompt for a in found] == ["never known", "lost too"]
    assert words.answer_line(found[0]) == '"never known" -> "It is 40 mg" at 95 %; right is "35 mg"'


def test_what_is_left_of_what_the_base_knew() -> None:
    kept = Measurement(value=1 / 3, interval=(0.06, 0.79), unit="share", items=3, source="test")
    tendencies = (Tendency(name="facts_kept", base=None, tuned=kept),)
    evaluation = build_evaluation(answers=ANSWERS, tendencies=tendencies)
    said = words.kept_sentence(evaluation)
    assert said == "Of 3 facts that the untouched base knew it lost 2 (33 % (95 %: 6 to 79) kept)."
    assert words.tendency_line(tendencies[0]) == (
        "Facts that the base knew and it still tells: 33 % (95 %: 6 to 79), 3 items"
    )
    nothing = build_evaluation(answers=ANSWERS[3:5], tendencies=())
    assert words.kept_sentence(nothing) == "Of 2 facts the untouched base knew none, so there was none to lose."
    assert words.kept_sentence(build_evaluation(answers=())) is None


def test_lengths_are_told_with_their_unit() -> None:
    sides = [
        Measurement(value=v, interval=(v - 1, v + 1), unit="tokens", items=9, source="test") for v in (120.4, 31.25)
    ]
    line = words.tendency_line(Tendency(name="answer_length", base=sides[0], tuned=sides[1]))
    assert line == (
        "Length of an answer: 120 tokens (95 %: 119.4 to 121.4) -> 31.2 tokens (95 %: 30.2 to 32.2), 9 items"
    )
    assert words.tendency_line(Tendency(name="length_right", base=None, tuned=None)).endswith(": unknown")


def test_sure_and_wrong_is_said_where_it_was_measured() -> None:
    evaluation = build_evaluation(comparisons=(build_comparison("confident_wrong", 0.03, 0.53, 0.3, 0.7),))
    assert words.confident_sentence(evaluation) == (
        "Confident and wrong: 53 % of its answers to closed-book questions are wrong at a mean probability of 70 % "
        "or more (before: 3 %)."
    )
    assert words.confident_sentence(build_evaluation(comparisons=())) is None


def gate(name: str, sign: str, limit: float, value: float | None, unit: str | None, met: bool = False) -> Gate:
    content = {"requirement": f"{name}{sign}{limit:g}", "name": name, "comparison": sign, "limit": limit}
    return Gate.model_validate({**content, "value": value, "unit": unit, "met": met})


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (gate("facts", ">=", 0.6, 0.03, "share"), "NOT met: `facts>=0.6`: facts is 3 %, 57 points too low."),
        (gate("facts", ">=", 0.6, 0.7, "share", True), "met: `facts>=0.6`: facts is 70 %."),
        (
            gate("facts.difference", ">", 0.0, 0.0, "share"),
            "NOT met: `facts.difference>0`: facts.difference is +0 points, exactly at the limit, and must be above it.",
        ),
        (
            gate("general_loss.difference.high", "<=", 0.03, 0.051, "nats per token"),
            "NOT met: `general_loss.difference.high<=0.03`: general_loss.difference.high is +0.051 nats, "
            "0.021 nats too high.",
        ),
        (gate("judge", ">", 0.5, None, None), "NOT met: `judge>0.5`: judge was not measured."),
        (gate("mine", "<", 2.0, 3.5, "score"), "NOT met: `mine<2`: mine is 3.5, 1.5 too high."),
    ],
    ids=["too low", "met", "at the limit", "too high", "not measured", "score"],
)
def test_a_gate_says_by_how_much(given: Gate, line: str) -> None:
    assert words.gate_line(given) == line


def test_passages_group_what_was_found_and_leave_nothing_out() -> None:
    own = build_comparison("format", 0.1, 0.2, -0.1, 0.3).model_copy(update={"metric": "my_metric", "unit": "score"})
    evaluation = build_evaluation(answers=ANSWERS)
    evaluation = evaluation.model_copy(update={"comparisons": (*evaluation.comparisons, own)})
    passages = dict(words.evaluation_passages(evaluation))
    assert list(passages)[:4] == ["How it talks", "What it knows", "Metrics of your own", "How sure it is"]
    said = [line for lines in passages.values() for line in lines]
    assert all(any(words.metric_name(c.metric) in line for line in said) for c in evaluation.comparisons)
    assert passages["Metrics of your own"] == [
        "My metric: 0.1 -> 0.2, +0.1 (95 %: -0.100 to +0.300), 48 items: cannot tell"
    ]
    assert len(passages["Facts that were known before and are lost"]) == 2


def test_the_bins_that_hold_answers_are_told() -> None:
    (plot,) = build_evaluation().reliability
    lines = dict(words.evaluation_passages(build_evaluation()))["As sure as it is right, the tuned model"]
    assert plot.kind == "answers"
    assert lines == ["Answers at 90 to 100 %: 6, right 33 %, at a mean probability of 94 %"]


def test_a_long_list_is_cut_and_says_so() -> None:
    evaluation = build_evaluation(answers=tuple(fact(f"q{i}", True, False, 0.1) for i in range(20)))
    lines = dict(words.evaluation_passages(evaluation))["Facts that were known before and are lost"]
    assert len(lines) == 9 and lines[-1] == "12 more in evidence.json"
