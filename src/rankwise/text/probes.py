"""Closed-book questions: what a model knows is asked with these, never trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rankwise.errors import DataError
from rankwise.text.containers import Record, read_records, shown
from rankwise.text.sources import ending_of, files_of

_SHAPE = (
    '{"question": text, "answer": text} and perhaps "choices": [text, ...], "paraphrases": [text, ...], '
    '"reversed": {"question": text, "answer": text}'
)


@dataclass(frozen=True)
class Probe:
    """A question with its right answer; with `choices` (then `answer` is one of them) it is multiple choice.
    `paraphrases` ask the same in other words; `reversed` asks for what the question names, given the answer.
    """

    question: str
    answer: str
    choices: tuple[str, ...]
    line: int
    paraphrases: tuple[str, ...] = ()
    reversed: tuple[str, str] | None = None


@dataclass(frozen=True)
class Wording:
    """One way in which a fact is asked.

    Attributes:
        probe: number of the probe.
        kind: the question as given, a paraphrase, or the reversed question (which has an answer of its own).
    """

    probe: int
    kind: Literal["fact", "paraphrase", "reversed"]
    question: str
    answer: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """As a conversation, with nothing to look the answer up in."""
        return [{"role": "user", "content": self.question}]


def wordings(probes: Sequence[Probe]) -> list[Wording]:
    """Every way in which the probes are asked: first all questions as given, in order."""
    found = [Wording(i, "fact", p.question, p.answer) for i, p in enumerate(probes)]
    found += [Wording(i, "paraphrase", text, p.answer) for i, p in enumerate(probes) for text in p.paraphrases]
    return found + [Wording(i, "reversed", *p.reversed) for i, p in enumerate(probes) if p.reversed]


def read_probes(path: Path) -> list[Probe]:
    """The probes of a file or folder of any kind but .csv, or of a dataset of the Hub, as `read_records` finds them.

    With choices, `answer` may be the 0-based index of the right one.

    Raises:
        DataError: anything that keeps the file from being read as probes, with the line at fault.
    """
    for file in files_of(path):
        if ending_of(file).startswith(".csv"):
            raise DataError(file, None, "probes are not read from .csv", expected="a .jsonl, .json or .parquet file")
    return [_probe(record) for record in read_records(path)]


def _probe(record: Record) -> Probe:
    value = record.value
    if not isinstance(value, dict):
        raise record.fault(f"the row is not an object: {shown(value)}", expected=_SHAPE)
    choices = _choices(record, value.get("choices"))
    answer = value.get("answer")
    if choices and isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(choices):
            raise record.fault(f"answer {answer} is no index into {len(choices)} choices", expected="an index from 0")
        answer = choices[answer]
    answer = _text(record, "answer", answer)
    if choices and answer not in choices:
        raise record.fault(
            f"the answer {shown(answer)} is not among the choices {shown(list(choices))}",
            expected="an answer that equals one of the choices, letter for letter",
            fix="correct the answer or the choices",
        )
    question = _text(record, "question", value.get("question"))
    paraphrases, turned = _paraphrases(record, value.get("paraphrases")), _reversed(record, value.get("reversed"))
    return Probe(question, answer, choices, record.line, paraphrases, turned)


def _paraphrases(record: Record, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise record.fault(f"paraphrases is {shown(value)}", expected="a list of texts")
    return tuple(_text(record, f"paraphrases[{index}]", text) for index, text in enumerate(value))


def _reversed(record: Record, value: Any) -> tuple[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise record.fault(f"reversed is {shown(value)}", expected=_SHAPE)
    return (
        _text(record, "reversed.question", value.get("question")),
        _text(record, "reversed.answer", value.get("answer")),
    )


def _choices(record: Record, value: Any) -> tuple[str, ...]:
    if value is None or value == []:
        return ()
    if not isinstance(value, list) or len(value) < 2:
        raise record.fault(f"choices is {shown(value)}", expected="a list of at least two texts")
    choices = tuple(_text(record, f"choices[{index}]", choice) for index, choice in enumerate(value))
    if len(set(choices)) < len(choices):
        raise record.fault(f"choices repeat themselves: {shown(list(choices))}", expected="distinct choices")
    return choices


def _text(record: Record, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        state = "missing" if value is None else "empty" if isinstance(value, str) else f"not text: {shown(value)}"
        raise record.fault(f"{key} is {state}", expected=_SHAPE)
    return value
