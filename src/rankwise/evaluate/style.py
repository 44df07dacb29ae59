"""How it talks: is an answer well formed, and is it the answer that the held-out row gives?"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import regex
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from rankwise.errors import DataError
from rankwise.records.job import AnswerFormat
from rankwise.text.formats import Row

# An expression such as `(a+)+b` can take forever on a wrong answer; such an answer does not follow the format.
MATCH_SECONDS = 2.0
Rule = Callable[[str], bool]


@dataclass(frozen=True)
class Exchange:
    """A conversation up to an answer, and that answer."""

    messages: tuple[dict[str, object], ...]
    expected: str

    @property
    def prompt(self) -> str:
        """The last thing said before the answer."""
        return str(self.messages[-1]["content"]) if self.messages else ""


def exchanges(rows: Sequence[Row]) -> list[Exchange]:
    """The first answer of every held-out conversation; documents have none, and neither have conversations that begin
    with a call of a tool or give tools, since there no text is right or wrong.
    """
    found = []
    for row in rows:
        turn = next((i for i, m in enumerate(row.messages) if m["role"] == "assistant"), None)
        if row.text is None and turn and row.messages[turn].get("content") and not row.given:
            found.append(Exchange(tuple(row.messages[:turn]), str(row.messages[turn]["content"])))
    return found


def format_rule(answer_format: AnswerFormat) -> Rule:
    """A test of a whole answer. Raises DataError when the schema or the expression is not valid."""
    if answer_format.regex is not None:
        return _regex_rule(answer_format.regex)
    path = answer_format.json_schema
    assert path is not None
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        Draft202012Validator.check_schema(schema)
    except (OSError, ValueError) as fault:
        raise DataError(path, None, f"the JSON schema cannot be read: {fault}", expected="valid JSON") from None
    except SchemaError as fault:
        raise DataError(path, None, f"not a valid JSON schema: {fault.message}") from None
    validator = Draft202012Validator(schema)

    def follows(answer: str) -> bool:
        try:
            return bool(validator.is_valid(json.loads(answer)))
        except (ValueError, RecursionError):
            return False

    return follows


def _regex_rule(expression: str) -> Rule:
    try:
        pattern = regex.compile(expression, regex.DOTALL)
    except regex.error as fault:
        raise DataError("format.regex", None, f"not a regular expression: {fault}") from None

    def follows(answer: str) -> bool:
        try:
            return pattern.fullmatch(answer.strip(), timeout=MATCH_SECONDS) is not None
        except TimeoutError:
            return False

    return follows


def same_answer(expected: str, answer: str) -> bool:
    """Equal as JSON values where both are JSON, else equal but for white space at the ends."""
    try:
        return bool(json.loads(expected) == json.loads(answer))
    except (ValueError, RecursionError):
        return expected.strip() == answer.strip()
