"""Requests: what is read, what is refused, and in whose words."""

import json
from typing import Any

import pytest

from rankwise.serve.gateway.errors import Refusal
from rankwise.serve.gateway.schemas import ChatRequest, CompletionRequest, parse

CHAT: dict[str, Any] = {"model": "clinic", "messages": [{"role": "user", "content": "hello"}]}


def chat(**changes: Any) -> ChatRequest:
    return parse(ChatRequest, json.dumps(CHAT | changes).encode())


def refused(**changes: Any) -> dict[str, Any]:
    with pytest.raises(Refusal) as found:
        chat(**changes)
    assert found.value.status == 400
    error: dict[str, Any] = found.value.body()["error"]
    return error


def test_null_is_not_given() -> None:
    asked = chat(stop=None, temperature=None, tools=None, response_format=None, logit_bias=None, n=None)
    assert asked.stops == () and asked.temperature is None


def test_what_asks_for_nothing_is_taken() -> None:
    chat(tools=[], response_format={"type": "text"}, logit_bias={}, parallel_tool_calls=True, user="me", store=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"tools": [{"type": "function"}]},
        {"response_format": {"type": "json_object"}},
        {"logit_bias": {"5": 1}},
        {"top_k": 40},
        {"store": True},
        {"n": 1, "modalities": ["text", "audio"]},
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(changes: dict[str, Any]) -> None:
    name = list(changes)[-1]
    error = refused(**changes)
    assert error["param"] == name and error["code"] == "unsupported_parameter" and name in error["message"]


def test_an_unknown_field_is_refused_by_name() -> None:
    assert refused(temprature=1)["param"] == "temprature"
    assert refused(**{"x" * 500: 1})["message"].count("x") == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": "hot"},
        {"temperature": -1},
        {"temperature": True},
        {"top_p": 0},
        {"max_tokens": 0},
        {"max_tokens": 1.5},
        {"n": 0},
        {"stop": [""]},
        {"stop": ["a"] * 17},
        {"seed": 2**64},
        {"messages": []},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]},
        {"model": ""},
        {"model": "m" * 257},
        {"stream": "yes"},
        {"top_logprobs": 21, "logprobs": True},
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    assert refused(**changes)["param"] == next(iter(changes))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b'{"model": NaN}',
        b'{"model": "a", "messages": ' + b"[" * 100_000,
        b'{"model":' * 5_000,
        b'\xff\xfe{"model": "a"}',
        b'{"model": "\\ud800"}',
        b'{"model": 1e999}',
        b'{"seed": ' + b"9" * 5_000 + b"}",
    ],
)
def test_bodies_that_are_not_json_objects_are_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as found:
        parse(ChatRequest, body)
    assert found.value.status == 400 and len(found.value.message) < 400


def test_turns_as_lm_eval_and_newer_clients_send_them() -> None:
    turns = [
        {"role": "developer", "content": "be short"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}],
            "type": "text",
        },
    ]
    rendered = [message.rendered() for message in chat(messages=turns).messages]
    assert rendered == [{"role": "system", "content": "be short"}, {"role": "user", "content": "one two"}]


@pytest.mark.parametrize("prompt", ["text", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_prompts_of_every_shape(prompt: Any) -> None:
    asked = parse(CompletionRequest, json.dumps({"model": "m", "prompt": prompt}).encode())
    assert asked.prompt == prompt


@pytest.mark.parametrize("prompt", [[], [[]], [-1], ["a", 1], None, 5, {"a": 1}])
def test_prompts_of_no_shape(prompt: Any) -> None:
    with pytest.raises(Refusal):
        parse(CompletionRequest, json.dumps({"model": "m", "prompt": prompt}).encode())
