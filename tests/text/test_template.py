import json
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from tokenizers import processors
from transformers import AutoTokenizer

from rankwise.errors import ModelError
from rankwise.text.template import ChatText

from .conftest import GENERATION, TEMPLATES, ModelFolder

TALK = [
    {"role": "user", "content": "Where is Paris? <b>&amp;</b>"},
    {"role": "assistant", "content": "  In France, été 🙂\n"},
    {"role": "user", "content": "And Lima?"},
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("prompt", [False, True])
def test_renders_and_encodes_as_transformers_does(model_folder: ModelFolder, template: str, prompt: bool) -> None:
    folder = model_folder(template)
    ours, theirs = ChatText.from_folder(folder), AutoTokenizer.from_pretrained(folder)
    rendered = ours.render(TALK, add_generation_prompt=prompt)
    assert rendered == theirs.apply_chat_template(TALK, tokenize=False, add_generation_prompt=prompt)
    ids = theirs.apply_chat_template(TALK, add_generation_prompt=prompt)["input_ids"]
    assert ours.encode(rendered) == ids
    if prompt:
        assert ours.encode_prompt(TALK) == ids
    for skip in (False, True):
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert (ours.pad_token_id, ours.vocab_size) == (theirs.pad_token_id, len(theirs))


HARD = {
    "scopes": "{% set x = 'a' %}{% generation %}{% set x = 'b' %}{{ x }}{% endgeneration %}{{ x }}",
    "dict": "{% set d = dict(a=1) %}{{ d | tojson(indent=2) }}{{ dict.fromkeys(['k'], 'é<') | tojson }}",
    "loop": "{% for m in messages %}{% if loop.index > 1 %}{% continue %}{% endif %}{{ m.content }}{% endfor %}",
    "missing": "{{ nothing }}{{ tools is none }}{{ messages[0].nothing is defined }}{{ pad_token is defined }}",
    "nulls": "{{ messages[1] | tojson }}",
    "time": "{{ strftime_now('%Y') }}",
    "blocks": "  {% if true %}\n  x\n  {% endif %}\n\ny\n",
}


@pytest.mark.parametrize("name", HARD)
def test_corners_of_jinja_render_as_in_transformers(model_folder: ModelFolder, name: str) -> None:
    folder = model_folder(None)
    (folder / "chat_template.jinja").write_text(HARD[name], encoding="utf-8")
    messages = [TALK[0], {"role": "assistant", "content": "x", "tool_calls": None, "thinking": "hm"}]
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, tokenize=False)
    assert ChatText.from_folder(folder).render(messages) == theirs


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[0].content + 1 }}",
        "{{ 1 / 0 }}",
        "{% set x = messages.append(1) %}",
        "{% set ns = namespace(_x=1) %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    ],
)
def test_what_a_template_raises_is_the_models_fault(model_folder: ModelFolder, source: str) -> None:
    folder = model_folder(None)
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    with pytest.raises(ModelError, match="refuses these messages"):
        ChatText.from_folder(folder).render(TALK)


def test_a_namespace_keeps_underscores_out_after_it_is_made(model_folder: ModelFolder) -> None:
    folder = model_folder(None)
    source = "{% set ns = namespace(self=1) %}{% set ns.a = 2 %}{{ ns.self + ns.a }}"
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    assert ChatText.from_folder(folder).render(TALK) == "3"
    (folder / "chat_template.jinja").write_text("{% set ns = namespace() %}{% set ns._a = 2 %}", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot hold '_a'"):
        ChatText.from_folder(folder).render(TALK)


def test_a_template_that_does_not_compile(model_folder: ModelFolder) -> None:
    folder = model_folder(None)
    (folder / "chat_template.jinja").write_text("a\n{% if %}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"does not compile \(line 2\)"):
        ChatText.from_folder(folder)


@pytest.mark.parametrize(
    "found",
    [
        GENERATION,
        [{"name": "tool_use", "template": "x"}, {"name": "default", "template": GENERATION}],
    ],
)
def test_template_inside_tokenizer_config(model_folder: ModelFolder, found: object) -> None:
    folder = model_folder(None, chat_template=found)
    expected = AutoTokenizer.from_pretrained(folder).apply_chat_template(TALK, tokenize=False)
    assert ChatText.from_folder(folder).render(TALK) == expected


def test_the_file_wins_over_tokenizer_config(model_folder: ModelFolder) -> None:
    assert ChatText.from_folder(model_folder("chatml", chat_template="x")).template == TEMPLATES["chatml"]


@pytest.mark.parametrize("config", [{}, {"chat_template": [{"name": "tool_use", "template": "x"}]}])
def test_no_template(model_folder: ModelFolder, config: dict[str, object]) -> None:
    text = ChatText.from_folder(model_folder(None, **config))
    assert (text.has_template, text.template, text.template_hash) == (False, None, None)
    with pytest.raises(ModelError, match="no chat template") as raised:
        text.render(TALK)
    assert raised.value.fix
    assert text.encode("Paris")


def test_no_messages(model_folder: ModelFolder) -> None:
    with pytest.raises(ModelError, match="empty conversation"):
        ChatText.from_folder(model_folder()).render([])


@pytest.mark.parametrize(
    ("config", "generation", "model", "stops"),
    [
        ("<|im_end|>", None, None, (2,)),
        ("<|im_end|>", {"eos_token_id": 0}, None, (0, 2)),
        ("<|im_end|>", {"eos_token_id": [6, 2, 0]}, {"eos_token_id": 5}, (0, 2, 6)),
        ("<|im_end|>", {}, {"eos_token_id": 5}, (2, 5)),
        (None, {"eos_token_id": None}, {"eos_token_id": [6, 0]}, (0, 6)),
        ({"content": "<|eot|>", "__type": "AddedToken"}, None, None, (6,)),
    ],
)
def test_stop_tokens(
    model_folder: ModelFolder,
    config: object,
    generation: dict[str, object] | None,
    model: dict[str, object] | None,
    stops: tuple[int, ...],
) -> None:
    folder = model_folder("chatml", eos_token=config)
    for name, content in (("generation_config.json", generation), ("config.json", model)):
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    text = ChatText.from_folder(folder)
    assert text.stop_token_ids == stops
    assert text.eos_token_id in stops


def test_without_any_eos_there_is_no_model_to_train(model_folder: ModelFolder) -> None:
    with pytest.raises(ModelError, match="end-of-sequence") as raised:
        ChatText.from_folder(model_folder(eos_token=None))
    assert raised.value.fix


def test_special_tokens_of_older_folders_and_new_ones(model_folder: ModelFolder) -> None:
    folder = model_folder(pad_token="<|pad|>")
    (folder / "special_tokens_map.json").write_text(
        '{"eos_token": {"content": "<|eot|>"}, "unk_token": "<|endoftext|>"}'
    )
    ours, theirs = ChatText.from_folder(folder), AutoTokenizer.from_pretrained(folder)
    assert ours.special_tokens == theirs.special_tokens_map
    assert ours.eos_token_id == theirs.eos_token_id == 6
    assert ours.pad_token_id == theirs.pad_token_id
    assert ours.vocab_size == len(theirs)


@pytest.mark.parametrize("config", [{}, {"add_bos_token": True}])
@pytest.mark.parametrize("begins", [False, True])
def test_documents_begin_as_in_transformers_and_always_end(
    model_folder: ModelFolder, config: dict[str, object], begins: bool
) -> None:
    folder = model_folder(**config)
    if begins:
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", 3)]
        )
        tokenizer.save(str(folder / "tokenizer.json"))
    ours, theirs = ChatText.from_folder(folder), AutoTokenizer.from_pretrained(folder)
    expected = theirs("Lima is in Peru.")["input_ids"]
    assert ours.encode_document("Lima is in Peru.") == [*expected, ours.eos_token_id]
    assert (expected[0] == ours.bos_token_id) == begins
    assert ours.encode_document("Lima<|im_end|>")[-2:] != [ours.eos_token_id] * 2


def test_offsets_name_the_characters(model_folder: ModelFolder) -> None:
    text = ChatText.from_folder(model_folder())
    sentence = "Paris, été 🙂<|im_end|>"
    ids, offsets = text.offsets(sentence)
    assert ids == text.encode(sentence)
    assert sentence[slice(*offsets[-1])] == "<|im_end|>"


def test_truncation_and_padding_of_the_file_are_not_applied(model_folder: ModelFolder) -> None:
    folder = model_folder()
    stored = json.loads((folder / "tokenizer.json").read_text())
    stored["truncation"] = {"max_length": 2, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    assert len(ChatText.from_folder(folder).encode("The capital of France is Paris")) > 2


def test_the_hash_follows_the_template_and_its_tokens_but_not_the_pad(model_folder: ModelFolder) -> None:
    plain = ChatText.from_folder(model_folder("chatml")).template_hash
    assert plain is not None
    assert len(plain) == 64
    assert ChatText.from_folder(model_folder("chatml", pad_token="<|endoftext|>")).template_hash == plain
    assert ChatText.from_folder(model_folder("chatml", eos_token="<|endoftext|>")).template_hash != plain
    assert ChatText.from_folder(model_folder("generation")).template_hash != plain


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="without tokenizer") as raised:
        ChatText.from_folder(tmp_path)
    assert raised.value.expected
    assert raised.value.fix
    with pytest.raises(ModelError, match="no such model folder"):
        ChatText.from_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"\xff"),
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b"[1]"),
        ("tokenizer_config.json", b"\xff"),
        ("generation_config.json", b"["),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_unreadable_files(model_folder: ModelFolder, name: str, content: bytes) -> None:
    folder = model_folder()
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        ChatText.from_folder(folder)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, rankwise.text.formats, rankwise.text.masks, rankwise.text.template; "
        "print(*{'torch', 'transformers', 'peft', 'datasets'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
