"""How it talks: is an answer well formed, and is it the answer that the held-out row gives?"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import regex
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable

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


@dataclass(frozen=True)
class Form:
    """What a well-formed answer is.

    Attributes:
        follows: a test of a whole answer.
        source: what it was checked by, in words that follow "checked by".
    """

    follows: Rule
    source: str


def form_of(answer_format: AnswerFormat) -> Form:
    """The job's own format. Raises DataError as `format_rule`."""
    return Form(
        format_rule(answer_format), "the JSON schema" if answer_format.json_schema else "the regular expression"
    )


def format_rule(answer_format: AnswerFormat) -> Rule:
    """A test of a whole answer. Raises DataError when the schema or the expression is not valid."""
    if answer_format.regex is not None:
        return _regex_rule(answer_format.regex)
    assert answer_format.json_schema is not None
    return _schema_rule(answer_format.json_schema)


def _schema_rule(path: Path) -> Rule:
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        raise DataError(
            path,
            getattr(fault, "lineno", None),
            f"the JSON schema cannot be read: {fault}",
            expected='a JSON schema: one JSON object, such as {"type": "object", "required": ["dose"]}',
            fix="mend the file; `python -m json.tool FILE` shows where it breaks",
        ) from None
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as fault:
        where = "/".join(map(str, fault.absolute_path))
        said = f"{fault.message}{f', at {where}' if where else ''}"
        raise DataError(
            path, None, f"not a valid JSON schema: {said}", expected="keywords of JSON Schema, draft 2020-12"
        ) from None
    validator = Draft202012Validator(schema, registry=Registry())  # a schema of somewhere else is never fetched

    def follows(answer: str) -> bool:
        try:
            return bool(validator.is_valid(json.loads(answer)))
        except Unresolvable as fault:
            raise DataError(
                path,
                None,
                f"the JSON schema points to a schema that is not in it: {fault}",
                expected="a `$ref` to `#/$defs/...` of the same file",
                fix="copy what it points to into the file",
            ) from None
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
