"""Questions: at most two, each changes the call when it is answered as it says."""

import re

import pytest

from rankwise.decide.flips import Flips
from rankwise.decide.questions import HIGH_LOSS, LOW_LOSS, questions
from rankwise.records import Facts, Job
from tests.builders import diagnosis, job
from tests.decide import worlds

KNOWN = {"examples": 240, "base_loss": 1.5, "domain": "general"}


def asked(wanted: Job, seen: Facts) -> tuple[str, ...]:
    return questions(wanted, seen, Flips(wanted, seen, worlds.real_prices, ()).traced)


def called(wanted: Job, seen: Facts) -> str:
    found = worlds.plan_of(wanted, seen)
    return f"{found.verdict.method} after {[t.split(':')[0] for t in found.verdict.first_try]}"


def with_data(wanted: Job, **data: object) -> Job:
    return wanted.model_copy(update={"data": wanted.data.model_copy(update=data)})


ANSWERS = {
    "goal": lambda j: [j.model_copy(update={"goal": g}) for g in ("instruction", "knowledge")],
    "data.base_loss": lambda j: [with_data(j, base_loss=n) for n in (LOW_LOSS, HIGH_LOSS)],
    "retrieval": lambda j: [j.model_copy(update={"retrieval": "possible"})],
    "data.domain": lambda j: [with_data(j, domain="code")],
}
SITUATIONS = {
    "unsure": (job(goal="unsure", data=KNOWN), worlds.world()),
    "knowledge": (job(goal="knowledge"), worlds.world()),
    "style": (job(), worlds.world()),
    "much data": (job(), worlds.world(rows=15_000)),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_each_question_changes_the_call_when_it_is_answered(name: str) -> None:
    wanted, seen = SITUATIONS[name]
    told = asked(wanted, seen)
    assert 1 <= len(told) <= 2
    now = called(wanted, seen)
    for question in told:
        (key,) = [k for k in ANSWERS if re.search(rf"\({re.escape(k)}\b|{re.escape(k)}: ", question)][:1]
        assert any(called(answer, seen) != now for answer in ANSWERS[key](wanted)), question
        assert "The call could become: " in question


def test_nothing_is_asked_where_no_answer_would_change_the_call() -> None:
    assert asked(job(data=KNOWN), worlds.world()) == ()


def test_what_was_measured_is_not_asked() -> None:
    seen = worlds.world().model_copy(update={"diagnosis": diagnosis()})
    assert not any("base_loss" in q for q in asked(job(), seen))
    assert any("base_loss" in q for q in asked(job(), worlds.world()))


def test_what_was_said_is_not_asked() -> None:
    said = job(goal="knowledge", retrieval="no", data=KNOWN)
    assert not any("looked up" in q for q in asked(said, worlds.world()))
    assert any("looked up" in q for q in asked(job(goal="knowledge", data=KNOWN), worlds.world()))


def test_what_changes_the_method_is_asked_before_what_changes_the_first_try() -> None:
    found = asked(job(goal="knowledge"), worlds.world(rows=15_000))
    weights = ["full" in q.split("could become: ")[1] or "instead" in q for q in found]
    assert weights == sorted(weights, reverse=True)
