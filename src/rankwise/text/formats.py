"""Records into rows: the five formats that people write, each read into chat messages or plain text, or refused.

The format is found once, from the keys of a file's first row, and then required of every row: a file that changes its
format halfway is a mistake more often than a choice.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from rankwise.errors import DataError
from rankwise.text.containers import Record, shown, stream_records
from rankwise.text.probes import Probe, read_probes
from rankwise.text.turns import ROLES, Message, called, given_of, kind_of, list_of, said, text_of, turns_of
from rankwise.unsupported import SUPERVISED, other_rows

__all__ = ["FORMATS", "Probe", "Row", "Rows", "read_probes", "read_rows", "stream_rows"]

_SHAREGPT_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "observation": "tool",
} | {role: role for role in ROLES}


@dataclass(frozen=True)
class Row:
    """One training row: a conversation in `messages`, or else a document in `text`; `line` is 1-based in `path`.

    A message is {"role", "content"} and whatever else the file gave it. An assistant message with `"weight": 0` is
    context that is not learned (OpenAI's convention; also given to assistant turns inside a `prompt`). `given` is what
    the chat template sees beside the messages: `tools`, `documents`, and what `chat_template_kwargs` names.
    """

    messages: tuple[Message, ...]
    text: str | None
    line: int
    path: Path
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """The rows of one file, folder or dataset and the name of the format they were written in (a key of FORMATS)."""

    format: str
    rows: list[Row]


def read_rows(path: Path, faults: list[DataError] | None = None) -> Rows:
    """The training rows of a file, of a folder's files, or of a dataset of the Hub, as `read_records` finds them, all
    in memory. Arguments and errors as of `stream_rows`.
    """
    name, rows = stream_rows(path, faults)
    return Rows(name, list(rows))


def stream_rows(path: Path, faults: list[DataError] | None = None) -> tuple[str, Iterator[Row]]:
    """(the name of the format, the rows one after the other), read as they are asked for.

    Args:
        faults: takes the faults of single rows, which are passed over; without it the first one is raised.

    Raises:
        DataError: anything that keeps it from being read as rows of one format, with file and line at fault.
    """
    records = stream_records(path)
    first = next(records)
    name = _detect(first)
    return name, _rows(chain([first], records), name, faults)


def _rows(records: Iterator[Record], name: str, faults: list[DataError] | None) -> Iterator[Row]:
    for record in records:
        try:
            row = _row(record, name)
        except DataError as fault:
            if faults is None:
                raise
            faults.append(fault)
        else:
            yield row


def _detect(first: Record) -> str:
    keys = _object(first)
    _refuse_other_rows(first)
    for name, (needed, _) in FORMATS.items():
        if all(key in keys for key in needed):
            return name
    probes = {"question", "answer"} <= keys.keys()
    raise first.fault(
        f"unknown format: the first row has the keys {shown(sorted(keys), 200)}",
        expected="; ".join(f"{name} ({', '.join(needed)})" for name, (needed, _) in FORMATS.items()),
        fix="these are probes: give the file as data.facts, or rename the keys to prompt and completion"
        if probes
        else "rename the keys to those of one format",
    )


def _refuse_other_rows(record: Record) -> None:
    if found := other_rows(_object(record)):
        raise record.fault(found[0], expected=SUPERVISED, fix=found[1])


def _row(record: Record, name: str) -> Row:
    needed, read = FORMATS[name]
    missing = [key for key in needed if key not in _object(record)]
    if missing:
        raise record.fault(
            f"the row lacks {shown(missing[0])}, and the file's first row is in the {name} format",
            expected=f"every row with the keys {', '.join(needed)}",
            fix="write the row in that format, or keep rows of other formats in files of their own",
        )
    _refuse_other_rows(record)
    content = read(record)
    if isinstance(content, str):
        return Row((), content, record.line, record.path)
    _check_turns(record, content)
    return Row(tuple(content), None, record.line, record.path, given_of(record))


def _object(record: Record) -> dict[str, Any]:
    if not isinstance(record.value, dict):
        raise record.fault(
            f"the row is {kind_of(record.value)}: {shown(record.value)}",
            expected='an object such as {"messages": [...]}',
        )
    return record.value


def _check_turns(record: Record, messages: list[Message]) -> None:
    if not any(message["role"] == "assistant" for message in messages):
        raise record.fault(
            "the row has no assistant turn, so there is nothing to learn from it",
            expected="at least one turn of the assistant",
            fix="remove the row, or add the answer",
        )
    if messages[0]["role"] == "assistant":
        raise record.fault(
            "the conversation begins with the assistant, which answers nothing",
            expected="a system or user turn first",
            fix="remove the first turn, or put the user's turn before it",
        )


def _messages(record: Record) -> list[Message]:
    return turns_of(record, "messages", record.value["messages"])


def _sharegpt(record: Record) -> list[Message]:
    listed = list_of(record, "conversations", record.value["conversations"])
    turns = [_sharegpt_turn(record, f"conversations[{index}]", turn) for index, turn in enumerate(listed)]
    return _system(record) + turns_of(record, "conversations", turns)


def _sharegpt_turn(record: Record, where: str, turn: Any) -> Any:
    """{from, value} as {role, content}; a turn that has role and content already is left as it is."""
    if not isinstance(turn, dict) or "from" not in turn:
        return turn
    who = turn["from"]
    if who == "function_call":  # LLaMA-Factory's: what the assistant calls, as JSON text
        return {"role": "assistant", "tool_calls": called(record, where, turn.get("value"))}
    return {"role": _SHAREGPT_ROLES.get(who, who) if isinstance(who, str) else who, "content": turn.get("value")}


def _alpaca(record: Record) -> list[Message]:
    messages = _system(record)
    for pair in list_of(record, "history", record.value.get("history") or []):
        if not isinstance(pair, list) or len(pair) != 2:
            raise record.fault(f"history holds {shown(pair)}", expected="a list of [instruction, output] pairs")
        messages += [said("user", record, "history", pair[0]), said("assistant", record, "history", pair[1])]
    asked = text_of(record, "instruction", record.value["instruction"])
    if extra := record.value.get("input"):
        asked = f"{asked}\n{text_of(record, 'input', extra)}"  # one line break, as LLaMA-Factory joins them
    return [*messages, {"role": "user", "content": asked}, said("assistant", record, "output", record.value["output"])]


def _prompt_completion(record: Record) -> list[Message]:
    prompt, completion = record.value["prompt"], record.value["completion"]
    if isinstance(prompt, list) != isinstance(completion, list):
        raise record.fault(
            f"prompt is {kind_of(prompt)} and completion is {kind_of(completion)}",
            expected="two texts or two message lists",
        )
    if not isinstance(prompt, list):
        return [said("user", record, "prompt", prompt), said("assistant", record, "completion", completion)]
    answer = turns_of(record, "completion", completion)
    if not any(message["role"] == "assistant" for message in answer):
        raise record.fault("completion has no assistant turn", expected="the assistant's answer in completion")
    asked = turns_of(record, "prompt", prompt)
    return [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in asked] + answer


def _plain(record: Record) -> str:
    return text_of(record, "text", record.value["text"])


def _system(record: Record) -> list[Message]:
    system = record.value.get("system")
    return [said("system", record, "system", system)] if system else []


FORMATS: Mapping[str, tuple[tuple[str, ...], Callable[[Record], list[Message] | str]]] = {
    "messages": (("messages",), _messages),
    "sharegpt": (("conversations",), _sharegpt),
    "alpaca": (("instruction", "output"), _alpaca),
    "prompt/completion": (("prompt", "completion"), _prompt_completion),
    "text": (("text",), _plain),
}
"""Format -> the keys its rows must have, and its reader. The first that fits is taken."""
