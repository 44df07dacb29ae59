"""What a well-formed answer is, and what the same answer is."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from rankwise.errors import DataError
from rankwise.evaluate.style import exchanges, format_rule, same_answer
from rankwise.records.job import AnswerFormat
from rankwise.text.formats import Row

SCHEMA = {
    "type": "object",
    "properties": {"dose": {"type": "number", "minimum": 0}, "unit": {"enum": ["mg", "ml"]}},
    "required": ["dose", "unit"],
    "additionalProperties": False,
}


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "answer.schema.json"
    path.write_text(json.dumps(SCHEMA))
    return path


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"dose": 3, "unit": "mg"}', True),
        (' {"unit":"ml","dose":0.5}\n', True),
        ('{"dose": "3", "unit": "mg"}', False),
        ('{"dose": -3, "unit": "mg"}', False),
        ('{"dose": 3}', False),
        ('{"dose": 3, "unit": "mg", "more": 1}', False),
        ('Here it is: {"dose": 3, "unit": "mg"}', False),
        ('```json\n{"dose": 3, "unit": "mg"}\n```', False),
        ('{"dose": 3, "unit": "mg"} {"dose": 3, "unit": "mg"}', False),
        ('{"dose": 3, "unit": "mg"', False),
        ("", False),
        ("3", False),
        ("[" * 100_000, False),
    ],
)
def test_json_schema(schema: Path, answer: str, expected: bool) -> None:
    assert format_rule(AnswerFormat(json_schema=schema))(answer) is expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("Dose: 3 mg", True), (" Dose: 3 mg\n", True), ("Dose: 3 mg please", False), ("dose: 3 mg", False)],
)
def test_regex_matches_the_whole_answer(answer: str, expected: bool) -> None:
    assert format_rule(AnswerFormat(regex=r"Dose: \d+ mg"))(answer) is expected


def test_a_dot_crosses_lines() -> None:
    assert format_rule(AnswerFormat(regex="A.*B"))("A\n1\nB")


def test_faults_are_said_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    for text, fault in (
        ("{", "cannot be read"),
        ('{"a": 1,\n "b": }', r"s\.json:2: the JSON schema cannot be read"),
        ('{"type": "nonsense"}', "not a valid JSON schema: .* at type"),
        (
            '{"properties": {"dose": {"pattern": "(["}}}',
            "is not a 'regex', at properties/dose/pattern",
        ),
        ('{"properties": 3}', "not a valid JSON schema"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=fault) as error:
            format_rule(AnswerFormat(json_schema=path))
        assert str(path) in error.value.what
    with pytest.raises(ValidationError, match="not a regular expression"):
        format_rule(AnswerFormat(regex="(("))


@pytest.mark.parametrize("pointer", ["#/$defs/dose", "https://example.org/dose.json", "dose.json"])
def test_a_schema_that_points_to_what_is_not_there_is_refused_and_nothing_is_fetched(
    tmp_path: Path, pointer: str
) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"properties": {"dose": {"$ref": pointer}}}))
    with pytest.raises(DataError, match="points to a schema that is not in it") as error:
        format_rule(AnswerFormat(json_schema=path))('{"dose": 3}')
    assert str(path) in error.value.what and "#/$defs" in error.value.expected


def test_a_schema_may_point_into_itself(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"$defs": {"mg": {"type": "number"}}, "properties": {"dose": {"$ref": "#/$defs/mg"}}}))
    rule = format_rule(AnswerFormat(json_schema=path))
    assert rule('{"dose": 3}') and not rule('{"dose": "3"}')


@pytest.mark.parametrize(
    ("expected", "answer", "same"),
    [
        ("Yes.", "Yes.", True),
        ("Yes.", " Yes.\n", True),
        ("Yes.", "yes.", False),
        ('{"a": 1, "b": 2}', '{"b":2,"a":1}', True),
        ('{"a": 1}', '{"a": 1, "b": 2}', False),
        ("12", "12.0", True),
        ("Yes.", "", False),
        ('{"a": 1}', '{"a": 1', False),
    ],
)
def test_same_answer(expected: str, answer: str, same: bool) -> None:
    assert same_answer(expected, answer) is same


def row(*messages: tuple[str, str], text: str | None = None) -> Row:
    return Row(tuple({"role": r, "content": c} for r, c in messages), text, 1, Path("x"))


def test_exchanges_end_before_the_first_answer() -> None:
    rows = [
        row(("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "u2"), ("assistant", "a2")),
        row(("user", "only a question")),
        row(text="a document"),
        row(("assistant", "speaks first")),
    ]
    found = exchanges(rows)
    assert [(e.prompt, e.expected, len(e.messages)) for e in found] == [("u", "a", 2)]


def test_an_expression_that_would_match_for_ever_gives_up_and_says_no() -> None:
    assert not format_rule(AnswerFormat(regex=r"(a+)+b"))("a" * 40)
