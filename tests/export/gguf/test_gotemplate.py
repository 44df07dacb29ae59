"""Chat templates of the field as Go templates: the same text, or none and a reason."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rankwise.errors import ModelError
from rankwise.export.gguf.gotemplate import GoTemplate, go_template
from rankwise.export.gguf.modelfile import modelfile
from rankwise.text.golden import GOLDEN_CHAT
from rankwise.text.template import ChatText
from tests.tiny import CHATML, tiny_tokenizer

LOOP = "{% for m in messages %}"
GEN = "{% if add_generation_prompt %}"
SMOL = (
    LOOP
    + "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are SmolLM<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    + GEN
    + "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set s = '<<SYS>>\n' + messages[0]['content'] "
    "+ '\n<</SYS>>\n\n' %}{% else %}{% set rest = messages %}{% set s = '' %}{% endif %}{% for m in rest %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (s if loop.first else '') + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{ bos_token }}" + LOOP + "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim "
    "+ '<|eot_id|>' }}{% endfor %}" + GEN + "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    + LOOP
    + "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}{{ '<start_of_turn>' + role + '\n' + "
    "m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}" + GEN + "{{ '<start_of_turn>model\n' }}{% endif %}"
)
ZEPHYR = (
    LOOP
    + "{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    + GEN
    + "{{ '<|assistant|>\n' }}{% endif %}"
)
BRACES = (
    LOOP
    + "{{ '{{' + m['role'] + '}} ' + m['content'] + '\n' }}{% endfor %}"
    + GEN
    + "{{ '{{assistant}} ' }}{% endif %}"
)
USUAL = {
    "chatml": (CHATML, False),
    "smollm2": (SMOL, False),
    "llama-2": (LLAMA2, False),
    "llama-3": (LLAMA3, True),
    "gemma": (GEMMA, True),
    "zephyr": (ZEPHYR, False),
    "braces": (BRACES, False),
}
NOT_IN_GO = {
    "date": ("{{ strftime_now('%d %b %Y') }}" + CHATML, "by the day"),
    "counted": (LOOP + "{{ loop.index ~ m['content'] }}{% endfor %}", "more than fixed text"),
    "upper": (LOOP + "{{ m['content'] | upper }}{% endfor %}", "changes the words"),
}


def text_of(folder: Path, template: str) -> ChatText:
    tiny_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(template)
    return ChatText.from_folder(folder)


def go(template: str, messages: Sequence[Any]) -> str:
    """What Go's text/template makes of the few actions that we write (golang.org/pkg/text/template)."""
    parts = [p for p in re.split(r"(\{\{ .*? \}\})", template) if p]
    said: list[str] = []
    _run(parts, said, {"messages": messages, "$last": None})
    return "".join(said)


def _run(parts: list[str], said: list[str], state: dict[str, Any]) -> None:
    at = 0
    while at < len(parts):
        part = parts[at]
        word = part[3:-3] if part.startswith("{{ ") and part.endswith(" }}") else None
        if word is None:
            said.append(part)
        elif word == "range .Messages":
            end = _end(parts, at)
            for message in state["messages"]:
                state["."] = message
                _run(parts[at + 1 : end], said, state)
            at = end
        elif word.startswith("if "):
            end = _end(parts, at)
            _run(_chosen(parts[at : end + 1], state), said, state)
            at = end
        elif word.startswith("$last"):
            state["$last"] = "" if ":=" in word else state["."]["role"]
        elif word == ".Content":
            said.append(state["."]["content"])
        else:
            assert word == '"{{"', word
            said.append("{{")
        at += 1


def _end(parts: list[str], at: int) -> int:
    depth = 0
    for number in range(at, len(parts)):
        depth += parts[number].startswith(("{{ if ", "{{ range "))
        depth -= parts[number] == "{{ end }}"
        if not depth:
            return number
    raise AssertionError("an action is not ended")


def _chosen(parts: list[str], state: dict[str, Any]) -> list[str]:
    """The branch of `if A … else if B … end` whose condition holds first."""
    marks, depth = [], 0
    for number, part in enumerate(parts):
        depth += part.startswith(("{{ if ", "{{ range "))
        if depth == 1 and (part.startswith(("{{ if ", "{{ else")) or part == "{{ end }}"):
            marks.append(number)
        depth -= part == "{{ end }}"
    for start, stop in pairwise(marks):
        found = re.fullmatch(r'\{\{ (?:else )?if eq (\.Role|\$last) "(\w*)" \}\}', parts[start])
        assert found, parts[start]
        value = state["."]["role"] if found[1] == ".Role" else state["$last"]
        if value == found[2]:
            return parts[start + 1 : stop]
    return []


@pytest.mark.parametrize("name", USUAL)
def test_the_usual_templates_are_the_same_text_in_go(name: str, tmp_path: Path) -> None:
    source, trimmed = USUAL[name]
    chat = text_of(tmp_path, source)
    found = go_template(chat, adds_bos=False)
    assert found.trimmed is trimmed
    long = [{"role": r, "content": f"{r} {n}"} for n in range(4) for r in ("user", "assistant")]
    asked = [*GOLDEN_CHAT, [*long, {"role": "user", "content": "Last?"}]]
    for conversation in asked if name != "gemma" else [asked[0], *asked[2:]]:
        clean = [{**m, "content": m["content"].strip()} for m in conversation] if trimmed else conversation
        assert go(found.text(), clean) == found.render(clean) == chat.render(clean, add_generation_prompt=True)


def test_bos_is_left_to_an_engine_that_puts_it(tmp_path: Path) -> None:
    chat = text_of(tmp_path, LLAMA3)
    assert go_template(chat, adds_bos=False).first.startswith(chat.special_tokens["bos_token"])
    assert go_template(chat, adds_bos=True).first.startswith("<|start_header_id|>user")


@pytest.mark.parametrize("name", NOT_IN_GO)
def test_other_templates_are_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    source, why = NOT_IN_GO[name]
    chat = text_of(tmp_path, source)
    with pytest.raises(ModelError, match=why):
        go_template(chat, adds_bos=False)
    text, notes = modelfile("m.gguf", chat, adds_bos=False, licence=None)
    assert "TEMPLATE" not in text and len(notes) == 1 and why in notes[0]


def test_a_modelfile(tmp_path: Path) -> None:
    chat = text_of(tmp_path, CHATML)
    licence = tmp_path / "LICENSE"
    licence.write_text("Do what you like.\n")
    text, notes = modelfile("clinic-bf16.gguf", chat, adds_bos=False, licence=licence)
    assert notes == []
    assert text == (
        "FROM ./clinic-bf16.gguf\n"
        'TEMPLATE """{{ $last := "" }}{{ range .Messages }}{{ if eq .Role "system" }}<|im_start|>system\n'
        "{{ .Content }}<|im_end|>\n<|im_start|>user\n"
        '{{ else if eq .Role "user" }}{{ if eq $last "" }}<|im_start|>user\n'
        '{{ else if eq $last "assistant" }}<|im_start|>user\n{{ end }}{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n'
        '{{ end }}{{ $last = .Role }}{{ end }}<|im_start|>assistant\n"""\n'
        'PARAMETER stop "<|im_end|>"\n'
        'LICENSE """Do what you like.\n"""\n'
    )


def test_a_template_that_knows_no_system_message_is_told(tmp_path: Path) -> None:
    _, notes = modelfile("m.gguf", text_of(tmp_path, GEMMA), adds_bos=False, licence=None)
    assert len(notes) == 2 and "blank space" in notes[0] and "no system message" in notes[1]


def test_fixed_text_with_braces_is_escaped() -> None:
    template = GoTemplate("{{u}} ", None, ("", ""), ("", ""), "")
    assert '{{ "{{" }}u}} ' in template.text()
