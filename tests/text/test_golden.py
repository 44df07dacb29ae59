"""The ids that training, folders and servers must agree on."""

from pathlib import Path

from transformers import AutoTokenizer

from rankwise.text.golden import GOLDEN_CHAT, answers_golden, golden, golden_of, named_ids, tokenize_request
from rankwise.text.template import ChatText
from tests.tiny import tiny_llama


def test_golden_ids_are_those_of_transformers(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "tiny")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = golden_of(folder)
    assert [g.messages for g in found] == list(GOLDEN_CHAT)
    for one in found:
        said = tokenizer.apply_chat_template(one.messages, add_generation_prompt=True, return_dict=True)
        assert one.ids == tuple(said["input_ids"])


def test_another_template_gives_other_ids(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "tiny")
    before = golden_of(folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "Assistant"))
    assert all(one.ids != other.ids for one, other in zip(before, golden_of(folder), strict=True))


def test_without_a_template_there_is_nothing_to_render(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "tiny")
    (folder / "chat_template.jinja").unlink()
    assert golden(ChatText.from_folder(folder)) == ()


def test_a_server_answers_with_exactly_these_ids(tmp_path: Path) -> None:
    one = golden_of(tiny_llama(tmp_path / "tiny"))[0]
    asked = tokenize_request("clinic@3", one)
    assert asked == {"model": "clinic@3", "messages": one.messages, "add_generation_prompt": True}
    assert answers_golden(one, {"count": len(one.ids), "tokens": list(one.ids)})
    assert not answers_golden(one, {"tokens": [1, *one.ids]})
    assert not answers_golden(one, {"error": "no such model"})


def test_ids_are_told_by_name_and_number(tmp_path: Path) -> None:
    found = named_ids(ChatText.from_folder(tiny_llama(tmp_path / "tiny")))
    assert (found.bos, found.eos, found.stops) == (("<|im_start|>", 1), ("<|im_end|>", 2), (2,))
    assert str(found) == "BOS <|im_start|> = 1, EOS <|im_end|> = 2, stops on 2"
