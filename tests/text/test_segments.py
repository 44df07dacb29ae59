"""Tool calls, reasoning and system turns: rendered as transformers renders them, learned where the assistant speaks,
and taken apart where a template rewrites what was said before."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from rankwise.errors import DataError, ModelError
from rankwise.text.formats import Row, read_rows
from rankwise.text.leftout import left_out
from rankwise.text.masks import IGNORE, Encoded, encode_row, encode_rows
from rankwise.text.template import ChatText

from .conftest import ModelFolder
from .published import PUBLISHED

SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "Weather in Lima?"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Lima", "unit": "C"}}}],
}
RESULT = {"role": "tool", "name": "weather", "content": '{"degrees": 18}'}
ANSWER = {"role": "assistant", "content": "18 degrees."}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
THOUGHT = {"role": "assistant", "reasoning_content": "Peru's capital.", "content": "Lima."}
MORE = (
    {"role": "user", "content": "And France?"},
    {**THOUGHT, "reasoning_content": "On the Seine.", "content": "Paris."},
)
TALKS: dict[str, tuple[tuple[dict[str, Any], ...], dict[str, Any]]] = {
    "plain": ((ASK, ANSWER), {}),
    "system": ((SYSTEM, ASK, ANSWER), {}),
    "tools": ((SYSTEM, ASK, CALL, RESULT, ANSWER), {"tools": TOOLS}),
    "reasoning": ((ASK, THOUGHT, *MORE), {}),
    "other name": ((ASK, {"role": "assistant", "thinking": "Hm.", "content": "Lima."}), {}),
    "no thinking": ((ASK, ANSWER), {"enable_thinking": False}),
}


def folder_of(model_folder: ModelFolder, name: str) -> Path:
    stop = "<|eot|>" if name in ("llama3.1", "r1") else "<|im_end|>"
    folder = model_folder(None, eos_token=stop)
    (folder / "chat_template.jinja").write_text(PUBLISHED[name], encoding="utf-8")
    return folder


def text_of(model_folder: ModelFolder, name: str) -> ChatText:
    return ChatText.from_folder(folder_of(model_folder, name))


def row(*messages: dict[str, Any], **given: Any) -> Row:
    return Row(messages, None, 7, Path("rows.jsonl"), given)


def learned(encoded: Encoded, text: ChatText) -> list[str]:
    runs, run = [], []
    for token, label in zip((*encoded.ids, 0), (*encoded.labels, IGNORE), strict=True):
        if label != IGNORE:
            run.append(token)
        elif run:
            runs.append(text.decode(run, skip_special_tokens=False))
            run = []
    return runs


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("prompt", [False, True])
def test_rendered_as_transformers_renders(model_folder: ModelFolder, name: str, talk: str, prompt: bool) -> None:
    folder = folder_of(model_folder, name)
    messages, given = TALKS[talk]
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=prompt, **given
    )
    assert ChatText.from_folder(folder).render(messages, prompt, given) == theirs


@pytest.mark.parametrize("name", ["qwen2.5", "smollm3"])
def test_calls_are_learned_and_results_are_not(model_folder: ModelFolder, name: str) -> None:
    text = text_of(model_folder, name)
    encoded = encode_row(row(*TALKS["tools"][0], tools=TOOLS), text)
    call, answer = learned(encoded, text)
    assert '"name": "weather", "arguments": {"city": "Lima", "unit": "C"}' in call and call.endswith("<|im_end|>")
    assert answer == "18 degrees.<|im_end|>"
    assert "degrees" not in call and "Be brief" not in call


def test_llama_31_calls_in_the_place_of_an_answer(model_folder: ModelFolder) -> None:
    text = text_of(model_folder, "llama3.1")
    encoded = encode_row(row(*TALKS["tools"][0], tools=TOOLS), text)
    call = '{"name": "weather", "parameters": {"city": "Lima", "unit": "C"}}<|eot|>'
    assert learned(encoded, text) == [call, "18 degrees.<|eot|>"]


@pytest.mark.parametrize("talk", ["tools", "reasoning"])
def test_marked_templates_agree_with_transformers_masks(model_folder: ModelFolder, talk: str) -> None:
    folder = folder_of(model_folder, "smollm3")
    messages, given = TALKS[talk]
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        list(messages), return_dict=True, return_assistant_tokens_mask=True, **given
    )
    ours = encode_row(row(*messages, **given), ChatText.from_folder(folder))
    assert list(ours.ids) == theirs["input_ids"]
    assert [int(label != IGNORE) for label in ours.labels] == theirs["assistant_masks"]


def test_a_template_that_drops_earlier_reasoning_gives_one_text_an_answer(model_folder: ModelFolder) -> None:
    """Each answer is learned after what inference would show before it, and with the reasoning it then writes."""
    text = text_of(model_folder, "qwen3")
    messages = TALKS["reasoning"][0]
    first, second = encode_rows(row(*messages), text)
    for encoded, count, thought, said in (
        (first, 1, "Peru's capital.", "Lima."),
        (second, 3, "On the Seine.", "Paris."),
    ):
        assert learned(encoded, text) == [f"<think>\n{thought}\n</think>\n\n{said}<|im_end|>"]
        prompt = text.encode_prompt(messages[:count])
        assert list(encoded.ids[: len(prompt)]) == prompt
    assert "Peru" not in text.decode(second.ids)
    with pytest.raises(ModelError, match="not one text but 2"):
        encode_row(row(*messages), text)


def test_the_steps_of_one_question_stay_together(model_folder: ModelFolder) -> None:
    """Qwen3 keeps the reasoning of calls after the last question: nothing has to be taken apart."""
    text = text_of(model_folder, "qwen3")
    call = {**CALL, "reasoning_content": "I have to look."}
    answer = {**ANSWER, "reasoning_content": "There it is."}
    one = encode_row(row(ASK, call, RESULT, answer, tools=TOOLS), text)
    said = learned(one, text)
    assert len(said) == 2 and "I have to look." in said[0] and "weather" in said[0] and "There it is." in said[1]


def test_no_answer_is_learned_twice_or_never(model_folder: ModelFolder) -> None:
    text = text_of(model_folder, "qwen3")
    talk = (ASK, CALL, RESULT, THOUGHT, *MORE, ASK, ANSWER)
    said = [run for encoded in encode_rows(row(*talk), text) for run in learned(encoded, text)]
    assert [sum(words in run for run in said) for words in ("weather", "Lima.<", "Paris.", "18 degrees")] == [
        1,
        1,
        1,
        1,
    ]
    weightless = [{**m, "weight": 0} if m is THOUGHT else m for m in talk]
    said = [run for encoded in encode_rows(row(*weightless), text) for run in learned(encoded, text)]
    assert not any("Lima.<" in run for run in said) and len(said) == 3


def test_a_prompt_that_opens_a_thought_is_noticed(model_folder: ModelFolder) -> None:
    text = text_of(model_folder, "r1")
    encoded = encode_row(row(ASK, ANSWER), text)
    assert encoded.unprompted and learned(encoded, text) == ["18 degrees.<|eot|>"]
    assert not encode_row(row(ASK, ANSWER), text_of(model_folder, "qwen2.5")).unprompted


@pytest.mark.parametrize(
    ("name", "talk", "lost"),
    [
        ("qwen2.5", "tools", []),
        ("qwen2.5", "reasoning", ["reasoning_content"]),
        ("qwen2.5", "other name", ["thinking"]),
        ("qwen3", "reasoning", []),
        ("qwen3", "other name", []),
        ("qwen3", "tools", ["tools"]),  # this short form of it has no place for them
        ("llama3.1", "tools", []),
        ("llama3.1", "reasoning", ["reasoning_content"]),
        ("smollm3", "tools", []),
        ("r1", "tools", ["tools", "the system turn", "tool_calls", "the tool turn"]),
        ("r1", "plain", []),
    ],
)
def test_what_a_template_passes_over_is_named(model_folder: ModelFolder, name: str, talk: str, lost: list[str]) -> None:
    messages, given = TALKS[talk]
    assert left_out(row(*messages, **given), text_of(model_folder, name)) == lost


def test_a_developer_turn_that_no_template_knows_is_named(model_folder: ModelFolder) -> None:
    talk = ({"role": "developer", "content": "Answer in French."}, ASK, ANSWER)
    assert left_out(row(*talk), text_of(model_folder, "qwen3")) == ["the developer turn"]
    assert left_out(row(*talk), text_of(model_folder, "llama3.1")) == []


def test_a_template_of_its_own_for_tools(model_folder: ModelFolder) -> None:
    both = [{"name": "default", "template": PUBLISHED["r1"]}, {"name": "tool_use", "template": PUBLISHED["qwen2.5"]}]
    folder = model_folder(None, chat_template=both)
    theirs, text = AutoTokenizer.from_pretrained(folder), ChatText.from_folder(folder)
    for messages, given in TALKS.values():
        if "enable_thinking" not in given:
            assert text.render(messages, False, given) == theirs.apply_chat_template(
                list(messages), tokenize=False, **given
            )
    theirs.save_pretrained(folder / "saved")
    assert ChatText.from_folder(folder / "saved").template_hash == text.template_hash
    assert text.template_hash != ChatText.from_folder(model_folder(None, chat_template=both[:1])).template_hash


def test_a_given_template_takes_the_place_of_the_models(model_folder: ModelFolder, tmp_path: Path) -> None:
    given = tmp_path / "mine.jinja"
    given.write_text(PUBLISHED["smollm3"])
    text = ChatText.from_folder(model_folder("chatml"), chat_template=given)
    assert text.template == PUBLISHED["smollm3"] and "Reasoning Mode" in text.render([ASK])
    given.write_text("{% if %}")
    with pytest.raises(ModelError, match="does not compile"):
        ChatText.from_folder(model_folder("chatml"), chat_template=given)
    with pytest.raises(ModelError, match="cannot be read"):
        ChatText.from_folder(model_folder("chatml"), chat_template=tmp_path / "nowhere.jinja")


# -- as files give them ----------------------------------------------------------------------------


def read(tmp_path: Path, **value: Any) -> Row:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(value) + "\n")
    return read_rows(path).rows[0]


def test_arguments_and_tools_as_json_text(tmp_path: Path) -> None:
    """OpenAI writes arguments as text, Parquet files often tools; templates take objects."""
    written = {"type": "function", "id": "1", "function": {"name": "weather", "arguments": '{"city": "Lima"}'}}
    turn = {"role": "assistant", "content": None, "tool_calls": [written]}
    found = read(tmp_path, messages=[ASK, turn, {**RESULT, "content": ""}, ANSWER], tools=json.dumps(TOOLS))
    assert found.messages[1]["tool_calls"][0] == {
        "type": "function",
        "id": "1",
        "function": {"name": "weather", "arguments": {"city": "Lima"}},
    }
    assert found.given == {"tools": TOOLS} and found.messages[2]["content"] == ""


def test_parts_of_text_are_joined_and_pictures_refused(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Weather in"}, {"type": "text", "text": "Lima?"}]
    assert read(tmp_path, messages=[{"role": "user", "content": parts}, ANSWER]).messages[0]["content"] == (
        "Weather in\nLima?"
    )
    for part in ({"type": "image_url", "image_url": "x"}, {"type": "refusal", "refusal": "no"}, "Lima?"):
        with pytest.raises(DataError, match=r"holds an image|part of type 'refusal'|has the part 'Lima") as raised:
            read(tmp_path, messages=[{"role": "user", "content": [part]}, ANSWER])
        assert raised.value.line == 1


def test_sharegpt_calls(tmp_path: Path) -> None:
    call = json.dumps({"name": "weather", "arguments": {"city": "Lima"}})
    turns = [("human", "Weather?"), ("function_call", call), ("observation", "18"), ("gpt", "18 degrees.")]
    found = read(tmp_path, conversations=[{"from": a, "value": b} for a, b in turns], tools=json.dumps(TOOLS))
    assert [m["role"] for m in found.messages] == ["user", "assistant", "tool", "assistant"]
    assert found.messages[1]["tool_calls"][0]["function"] == json.loads(call) and found.given["tools"] == TOOLS


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tools": "{"}, "tools is text that is not JSON"),
        ({"tools": [1]}, "tools is .1."),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs is a list"),
        ({"messages": [ASK, {"role": "assistant", "tool_calls": [{"x": 1}]}]}, "has the tool call"),
        (
            {"messages": [ASK, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{x"}]}]},
            "are not JSON",
        ),
        ({"messages": [ASK, {**ANSWER, "reasoning_content": 3}]}, "reasoning_content of messages.1. is a number"),
        ({"messages": [ASK, {**ANSWER, "content": ""}]}, "is empty"),
        ({"messages": [ASK, {"role": "oracle", "content": "x"}, ANSWER]}, "unknown role 'oracle'"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(
        DataError, match=says.partition(": ")[2] or says if says.startswith("expected") else says
    ) as raised:
        read(tmp_path, **{"messages": [ASK, ANSWER], **change})
    assert raised.value.line == 1 and raised.value.expected


# -- templates as TRL ships them -------------------------------------------------------------------

SHIPPED = (
    "qwen2_5",
    "qwen3",
    "llama3_1",
    "qwen3_5_think",
    "gptoss",
    "glm4moe",
    "deepseek_r1_distill",
    "phi3",
    "gemma3",
)


@pytest.mark.parametrize("name", SHIPPED)
def test_whole_published_templates(model_folder: ModelFolder, name: str) -> None:
    """Every learned answer follows what inference shows before it; where a template refuses, so does transformers."""
    found = importlib.util.find_spec("trl")
    if found is None or found.origin is None:
        pytest.skip("TRL, which ships these templates, is not installed")
    folder = model_folder(None, eos_token="<|im_end|>")
    source = (Path(found.origin).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    theirs, text = AutoTokenizer.from_pretrained(folder), ChatText.from_folder(folder)
    for messages, given in ((TALKS["plain"]), (TALKS["reasoning"]), (TALKS["tools"])):
        try:
            expected = theirs.apply_chat_template(list(messages), tokenize=False, **given)
        except Exception:
            with pytest.raises(DataError, match="refuses these messages"):
                encode_rows(row(*messages, **given), text)
            continue
        assert text.render(messages, given=given) == expected
        encoded = encode_rows(row(*messages, **given), text)
        said = "".join(run for one in encoded for run in learned(one, text))
        for message in messages:
            if message["role"] == "assistant" and message["content"]:
                assert message["content"] in said
            elif message["role"] != "assistant":
                assert message["content"] not in said
