"""Sentences about tenants."""

import pytest

from rankwise.records import Change, Gate, Limits
from rankwise.report import tenant_words as say
from tests.builders import adapter_version, tenant


def gate(met: bool, name: str = "facts") -> Gate:
    value = 0.7 if met else 0.3
    return Gate(requirement=f"{name}>=0.6", name=name, comparison=">=", limit=0.6, value=value, unit="share", met=met)


def test_what_answers() -> None:
    assert say.answers(tenant(active=2)) == "version 2 answers"
    assert say.answers(tenant(active=None)) == "no version answers"


def test_limits() -> None:
    assert say.limits(Limits()) == "no limits of its own"
    assert say.limits(Limits(requests_per_minute=1000)) == "at most 1,000 requests per minute"


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ((gate(True),), ""),
        ((gate(True), gate(False, "format")), "It cannot be promoted: format is not met."),
        ((gate(False), gate(False, "format")), "It cannot be promoted: facts, format are not met."),
        ((), "It cannot be promoted: nothing was required of it, so that nothing was shown."),
    ],
)
def test_why_a_version_may_not_answer(gates: tuple[Gate, ...], said: str) -> None:
    version = adapter_version(gates=gates)
    assert say.refusal(version) == said and say.may_answer(version) == (said == "")


def test_a_gate_is_said_without_the_word_that_its_mark_says() -> None:
    assert say.gate_sentence(gate(False)) == "`facts>=0.6`: facts is 30 %, 30 points too low."
    assert say.gate_sentence(gate(True)) == "`facts>=0.6`: facts is 70 %."


@pytest.mark.parametrize(
    ("action", "version", "before", "said"),
    [
        ("added", 3, 2, "added version 3"),
        ("promoted", 2, 1, "promoted version 2, in the place of version 1"),
        ("promoted", 1, None, "promoted version 1"),
        ("rolled back", 1, 2, "rolled back to version 1, in the place of version 2"),
        ("removed", None, 2, "removed"),
    ],
)
def test_what_happened(action: str, version: int | None, before: int | None, said: str) -> None:
    change = Change.model_validate(
        {"at": "2026-01-01T00:00:00", "tenant": "a", "action": action, "version": version, "before": before}
    )
    assert say.change_line(change) == said
