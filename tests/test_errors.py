"""Every error says what happened, what was expected and how to fix it, and ends in the right exit code."""

import pytest

from rankwise import errors
from rankwise.errors import AnswerIsNo, DataError, JobError, RankwiseError

KINDS = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, RankwiseError)]
CODES = {"UsageError": 2, "JobError": 2, "UnknownGpuError": 2, "AnswerIsNo": 3}


def test_the_three_sentences_stand_below_each_other() -> None:
    error = RankwiseError("it broke", expected="it to hold", fix="mend it")
    assert str(error) == "it broke\nexpected: it to hold\nfix: mend it"


def test_empty_sentences_leave_no_empty_lines() -> None:
    assert str(RankwiseError("it broke")) == "it broke"
    assert str(RankwiseError("it broke", fix="mend it")) == "it broke\nfix: mend it"


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_every_kind_has_the_exit_code_of_the_contract(kind: type[RankwiseError]) -> None:
    assert kind.exit_code == CODES.get(kind.__name__, 1)


def test_there_are_as_many_kinds_as_the_tree_in_the_module_shows() -> None:
    named = [k.__name__ for k in KINDS]
    assert len(named) == 19
    assert all(name in (errors.__doc__ or "") for name in named)


def test_json_says_the_same_as_the_message() -> None:
    error = JobError("bad key", expected="a good one", fix="did you mean goal?")
    assert error.to_json() == {
        "kind": "JobError",
        "what": "bad key",
        "expected": "a good one",
        "fix": "did you mean goal?",
        "exit_code": 2,
    }
    assert AnswerIsNo("no").to_json()["exit_code"] == 3


def test_a_data_error_begins_with_file_and_line() -> None:
    assert str(DataError("rows.jsonl", 7, "not JSON")) == "rows.jsonl:7: not JSON"
    assert str(DataError("rows.jsonl", None, "empty")) == "rows.jsonl: empty"
