"""What a row says and the chat template does not write: a tool call that vanishes is learned by nobody."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rankwise.text.formats import Row
from rankwise.text.template import ChatText
from rankwise.text.turns import REASONING

_OTHER = " zqxj"  # changes a text into one that no template knows


@dataclass(frozen=True)
class _Said:
    """Something that a row says: its name, its words (None for a name, which may stand elsewhere, too), the messages
    with which it has to show, and the row with other words in its place.
    """

    what: str
    words: str | None
    messages: tuple[Mapping[str, Any], ...]
    changed: tuple[tuple[Mapping[str, Any], ...], Mapping[str, Any]]


def left_out(row: Row, chat: ChatText) -> list[str]:
    """Names of what the template passes over in silence, e.g. `tools`, `reasoning_content`, `the developer turn`.

    Something is left out if its words are not in the text and the text stays the same with other words in their place
    (a template may write them otherwise). The reasoning and calls of a turn count where that turn is the last, because
    templates may drop them later. Raises ModelError as `ChatText.render`.
    """
    if row.text is not None:
        return []
    texts: dict[int, str] = {}
    found: dict[str, None] = {}
    for said in _all_said(row):
        count = len(said.messages)
        if count not in texts:
            texts[count] = chat.render(said.messages, given=row.given)
        if not (said.words and _stands_in(said.words, texts[count])) and _ignored(said, texts[count], chat):
            found[said.what] = None
    return list(found)


def _stands_in(words: str, text: str) -> bool:
    return words.strip() in text or json.dumps(words.strip(), ensure_ascii=False)[1:-1] in text


def _ignored(said: _Said, text: str, chat: ChatText) -> bool:
    messages, given = said.changed
    return chat.render(messages, given=given) == text


def _all_said(row: Row) -> Iterator[_Said]:
    for number, tool in enumerate(row.given.get("tools") or ()):
        if _name_of(tool):
            tools = list(row.given["tools"])
            tools[number] = _renamed(tool)
            yield _Said("tools", None, row.messages, (row.messages, {**row.given, "tools": tools}))
    for index, message in enumerate(row.messages):
        assistant = message["role"] == "assistant"
        if assistant and message.get("weight") == 0:
            continue
        end = index + 1 if assistant else len(row.messages)
        for what, words, other in _of(message):
            changed = (*row.messages[:index], other, *row.messages[index + 1 : end])
            yield _Said(what, words, row.messages[:end], (changed, row.given))


def _of(message: Mapping[str, Any]) -> Iterator[tuple[str, str | None, Mapping[str, Any]]]:
    """(name, words, the message with other words) of all that a message says."""
    content = message.get("content")
    if isinstance(content, str) and content.strip():
        yield f"the {message['role']} turn", content, {**message, "content": content + _OTHER}
    for key in REASONING:
        if message.get(key):
            others = {name: message[name] + _OTHER for name in REASONING if message.get(name)}
            yield key, message[key], {**message, **others}
            break
    calls = message.get("tool_calls") or ()
    for number, call in enumerate(calls):
        if _name_of(call):
            renamed = [*calls[:number], _renamed(call), *calls[number + 1 :]]
            yield "tool_calls", None, {**message, "tool_calls": renamed}


def _name_of(tool: Mapping[str, Any]) -> str | None:
    name = tool.get("function", tool).get("name")
    return name if isinstance(name, str) else None


def _renamed(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    if "function" in tool:
        return {**tool, "function": _renamed(tool["function"])}
    return {**tool, "name": f"{tool['name']}{_OTHER.strip()}"}
