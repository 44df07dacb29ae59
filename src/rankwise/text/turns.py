"""The turns of a conversation as files give them -> messages as chat templates take them, or refused.

Contents become text, a tool call's arguments an object (OpenAI writes them as JSON text; templates, and vLLM before it
renders one, want the object).
"""

import json
from typing import Any

from rankwise.text.record import Record, shown

Message = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
RESULTS = ("tool", "function")  # what a tool gave back, which may be empty
REASONING = ("reasoning_content", "thinking", "reasoning")
_GIVEN = ("tools", "documents", "chat_template_kwargs")


def turns_of(record: Record, key: str, turns: Any) -> list[Message]:
    """The messages of a list of turns. Raises DataError."""
    listed = list_of(record, key, turns)
    if not listed:
        raise record.fault(f"{key} is empty", expected="a list of turns")
    return [_turn(record, f"{key}[{index}]", turn) for index, turn in enumerate(listed)]


def _turn(record: Record, where: str, turn: Any) -> Message:
    if not isinstance(turn, dict) or "role" not in turn:
        raise record.fault(f"{where} is not a turn: {shown(turn)}", expected='{"role": ..., "content": ...}')
    role = turn["role"]
    if role not in ROLES:
        raise record.fault(
            f"unknown role {shown(role)} in {where}",
            expected=f"one of {', '.join(ROLES)} (sharegpt: human, gpt, ...)",
            fix="rename the role",
        )
    message = dict(turn)
    if calls := turn.get("tool_calls"):
        message["tool_calls"] = [
            _call(record, where, call) for call in list_of(record, f"tool_calls of {where}", calls)
        ]
    for key in REASONING:
        if turn.get(key) is not None and not isinstance(turn[key], str):
            raise record.fault(f"{key} of {where} is {kind_of(turn[key])}: {shown(turn[key])}", expected="text")
    content = _joined(record, where, turn.get("content"))
    if not content and ((role == "assistant" and calls) or (role in RESULTS and content == "")):
        return {**message, "content": content} if "content" in turn else message
    return {**message, "content": text_of(record, f"content of {where}", content)}


def _joined(record: Record, where: str, content: Any) -> Any:
    """A list of text parts as one text, joined as vLLM joins them; anything else as it is."""
    if not isinstance(content, list):
        return content
    for part in content:
        if isinstance(part, dict) and part.get("type") not in ("text", None):
            raise record.fault(
                f"content of {where} has a part of type {shown(part['type'])}",
                expected="parts of type text",
                fix="remove the part, or the row",
            )
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise record.fault(
                f"content of {where} has the part {shown(part)}", expected='{"type": "text", "text": ...}'
            )
    return "\n".join(part["text"] for part in content)


def _call(record: Record, where: str, call: Any) -> dict[str, Any]:
    """A tool call whose arguments are an object."""
    inner = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise record.fault(
            f"{where} has the tool call {shown(call)}",
            expected='{"type": "function", "function": {"name": ..., "arguments": {...}}}',
        )
    arguments = inner.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except ValueError:
            raise record.fault(
                f"the arguments of {inner['name']!r} in {where} are not JSON: {shown(arguments)}",
                expected="an object, or one written as JSON text",
            ) from None
        inner = {**inner, "arguments": arguments}
    return {**call, "function": inner} if "function" in call else dict(inner)


def called(record: Record, where: str, text: Any) -> list[dict[str, Any]]:
    """The tool calls of a sharegpt `function_call` turn: JSON text of one call or of a list. Raises DataError."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        raise record.fault(
            f"{where} is a function_call that is not JSON: {shown(text)}",
            expected='{"name": ..., "arguments": {...}}, or a list of them',
        ) from None
    return [{"type": "function", "function": call} for call in (found if isinstance(found, list) else [found])]


def given_of(record: Record) -> dict[str, Any]:
    """What the chat template sees of a row beside its messages: `tools`, `documents`, and each of
    `chat_template_kwargs`. Lists may be given as JSON text. Raises DataError.
    """
    found = {key: _parsed(record, key, record.value[key]) for key in _GIVEN if record.value.get(key)}
    more = found.pop("chat_template_kwargs", {})
    if not isinstance(more, dict):
        raise record.fault(
            f"chat_template_kwargs is {kind_of(more)}", expected='an object such as {"enable_thinking": false}'
        )
    for key, value in found.items():
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise record.fault(f"{key} is {shown(value)}", expected="a list of objects", fix="give JSON schemas")
    return {key: value for key, value in found.items() if value} | more


def _parsed(record: Record, key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as fault:
        raise record.fault(f"{key} is text that is not JSON: {fault}", expected="a list, or one as JSON text") from None


def said(role: str, record: Record, key: str, content: Any) -> Message:
    return {"role": role, "content": text_of(record, key, content)}


def list_of(record: Record, key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise record.fault(f"{key} is {kind_of(value)}: {shown(value)}", expected="a list")
    return value


def text_of(record: Record, key: str, value: Any) -> str:
    if not isinstance(value, str):
        fix = "join the parts into one string" if isinstance(value, list) else ""
        raise record.fault(f"{key} is {kind_of(value)}: {shown(value)}", expected="text", fix=fix)
    if not value.strip():
        raise record.fault(f"{key} is empty", expected="text", fix="remove the row, or fill it in")
    return value


def kind_of(value: Any) -> str:
    """A value's kind as an error says it."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "missing or null"}
    return names.get(type(value), "a number")
