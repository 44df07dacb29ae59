from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rankwise.errors import DataError, ModelError, UsageError
from rankwise.text.fitting import LengthReport, OnLong, fit_length
from rankwise.text.formats import Row
from rankwise.text.masks import IGNORE, Encoded, encode_row
from rankwise.text.template import ChatText

from .conftest import ModelFolder

FILE = Path("rows.jsonl")
SYSTEM = {"role": "system", "content": "Be brief."}
TALK = (
    {"role": "user", "content": "Where is Paris?"},
    {"role": "assistant", "content": "In France, été 🙂."},
    {"role": "user", "content": "And Lima?"},
    {"role": "assistant", "content": "Lima is the capital of Peru."},
)


def chat(*messages: dict[str, object], line: int = 3) -> Row:
    return Row(messages, None, line, FILE)


def learned(encoded: Encoded, text: ChatText) -> list[str]:
    """The text of each unbroken run of labels."""
    runs: list[list[int]] = [[]]
    for label in encoded.labels:
        if label != IGNORE:
            runs[-1].append(label)
        elif runs[-1]:
            runs.append([])
    return [text.decode(run, skip_special_tokens=False) for run in runs if run]


STOPS = {"chatml": "<|im_end|>", "generation": "<|im_end|>", "llama3": "<|eot|>"}


@pytest.mark.parametrize("template", STOPS)
@pytest.mark.parametrize("messages", [TALK, (SYSTEM, *TALK), TALK[:2], (SYSTEM, TALK[1]), (*TALK, TALK[0])])
def test_what_the_assistant_says_is_learned_with_its_stop_token(
    model_folder: ModelFolder, template: str, messages: tuple[dict[str, object], ...]
) -> None:
    folder = model_folder(template)
    text = ChatText.from_folder(folder)
    encoded = encode_row(chat(*messages), text)
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(list(messages))["input_ids"]
    assert list(encoded.ids) == theirs
    said = [f"{message['content']}{STOPS[template]}" for message in messages if message["role"] == "assistant"]
    assert learned(encoded, text) == said
    assert encoded.supervised == sum(label != IGNORE for label in encoded.labels)
    assert all(label in (IGNORE, token) for label, token in zip(encoded.labels, encoded.ids, strict=True))
    assert (encoded.line, encoded.path) == (3, FILE)


def test_agrees_with_the_generation_marks_of_transformers(model_folder: ModelFolder) -> None:
    folder = model_folder("generation")
    marks = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        list(TALK), return_dict=True, return_assistant_tokens_mask=True
    )["assistant_masks"]
    encoded = encode_row(chat(*TALK), ChatText.from_folder(folder))
    assert [int(label != IGNORE) for label in encoded.labels] == marks


@pytest.mark.parametrize("content", ["<|im_end|>", "a <|im_end|> b", "  Paris", "Paris \n\n", "\n", "🙂"])
def test_odd_answers_are_learned_whole(model_folder: ModelFolder, content: str) -> None:
    text = ChatText.from_folder(model_folder())
    row = chat(TALK[0], {"role": "assistant", "content": content}, TALK[2], TALK[3])
    prompt = len(text.encode_prompt([TALK[0]]))
    encoded = encode_row(row, text)
    assert learned(encoded, text)[0].endswith("<|im_end|>")
    assert learned(encoded, text)[0].strip().startswith(content.strip())
    # "\n" at the end of the prompt may merge with a line break that the answer begins with, never with more.
    assert encoded.labels[: prompt - 1] == (IGNORE,) * (prompt - 1)


def test_a_template_without_stop_token_loses_no_word(model_folder: ModelFolder) -> None:
    text = ChatText.from_folder(model_folder("plain"))
    encoded = encode_row(chat(*TALK), text)
    assert [said.strip() for said in learned(encoded, text)] == [TALK[1]["content"], TALK[3]["content"]]


def test_weight_zero_is_context(model_folder: ModelFolder) -> None:
    text = ChatText.from_folder(model_folder())
    encoded = encode_row(chat(TALK[0], {**TALK[1], "weight": 0}, *TALK[2:]), text)
    assert learned(encoded, text) == ["Lima is the capital of Peru.<|im_end|>"]
    with pytest.raises(DataError, match="nothing in this row would be learned"):
        encode_row(chat(TALK[0], {**TALK[1], "weight": 0}), text)


def test_a_document_is_learned_throughout(model_folder: ModelFolder) -> None:
    text = ChatText.from_folder(model_folder())
    encoded = encode_row(Row((), "Lima is in Peru.", 9, FILE), text)
    assert encoded.ids == encoded.labels == tuple(text.encode_document("Lima is in Peru."))
    assert encoded.ids[-1] == text.eos_token_id
    assert encoded.line == 9


@pytest.mark.parametrize("messages", [TALK, TALK[:2]])
def test_an_unstable_template_is_refused(model_folder: ModelFolder, messages: tuple[dict[str, object], ...]) -> None:
    with pytest.raises(ModelError, match="not prefix-stable") as raised:
        encode_row(chat(*messages), ChatText.from_folder(model_folder("unstable")))
    assert "rows.jsonl:3" in raised.value.what
    assert raised.value.fix


def test_a_row_that_the_template_refuses_is_named(model_folder: ModelFolder) -> None:
    with pytest.raises(DataError, match="no such role: tool") as raised:
        encode_row(
            chat(TALK[0], {"role": "tool", "content": "x"}, TALK[1]), ChatText.from_folder(model_folder("llama3"))
        )
    assert raised.value.line == 3


def test_a_model_without_template_is_the_models_fault(model_folder: ModelFolder) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        encode_row(chat(*TALK), ChatText.from_folder(model_folder(None)))


def row(length: int, supervised: int, line: int = 1) -> Encoded:
    ids = tuple(range(length))
    return Encoded(ids, (IGNORE,) * (length - supervised) + ids[length - supervised :], line, FILE)


def test_drop() -> None:
    fitted, report = fit_length([row(4, 2), row(9, 3), row(5, 5)], 5, "drop")
    assert fitted == [row(4, 2), row(5, 5)]
    assert report == LengthReport(3, 1, 1, 9, 3, 0)


def test_truncate_drops_what_has_no_label_left() -> None:
    fitted, report = fit_length([row(4, 2), row(9, 3), row(9, 6)], 5, "truncate")
    assert [len(part.ids) for part in fitted] == [4, 5]
    assert fitted[1].labels == (IGNORE, IGNORE, IGNORE, 3, 4)
    assert report == LengthReport(3, 2, 1, 9 + 4, 3 + 4, 0)


def test_split_keeps_windows_with_labels() -> None:
    fitted, report = fit_length([row(12, 5, line=8), row(3, 1)], 5, "split")
    assert [part.ids for part in fitted] == [(5, 6, 7, 8, 9), (10, 11), (0, 1, 2)]
    assert [part.labels for part in fitted] == [(IGNORE, IGNORE, 7, 8, 9), (IGNORE, 11), (IGNORE, IGNORE, 2)]
    assert [part.line for part in fitted] == [8, 8, 1]
    assert report == LengthReport(2, 1, 0, 5, 1, 2)


def test_error_names_the_first_long_row_and_the_longest() -> None:
    with pytest.raises(DataError) as raised:
        fit_length([row(4, 2), row(9, 3, line=7), row(11, 3, line=8)], 5, "error")
    assert raised.value.line == 7
    assert "the longest has 11 tokens" in raised.value.what
    assert "11" in raised.value.fix
    assert fit_length([row(4, 2)], 5, "error")[1] == LengthReport(1, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("on_long", ["drop", "truncate"])
def test_nothing_left(on_long: OnLong) -> None:
    with pytest.raises(DataError, match="no row is left"):
        fit_length([row(9, 3)], 5, on_long)
    with pytest.raises(DataError, match="there are no rows"):
        fit_length([], 5, on_long)


def test_a_length_of_one_predicts_nothing() -> None:
    with pytest.raises(UsageError):
        fit_length([row(9, 3)], 1, "split")


ROWS = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 30)).map(lambda n: row(max(n), min(n))), min_size=1, max_size=8
)


@given(rows=ROWS, max_length=st.integers(2, 20), on_long=st.sampled_from(["drop", "truncate", "split"]))
def test_every_token_is_kept_or_counted(rows: list[Encoded], max_length: int, on_long: OnLong) -> None:
    rows = [replace(one, line=number) for number, one in enumerate(rows, start=1)]
    try:
        fitted, report = fit_length(rows, max_length, on_long)
    except DataError:
        return
    assert all(len(part.ids) == len(part.labels) <= max_length and part.supervised for part in fitted)
    assert sum(len(part.ids) for part in fitted) + report.dropped_tokens == sum(len(one.ids) for one in rows)
    assert sum(part.supervised for part in fitted) + report.lost_supervised_tokens == sum(r.supervised for r in rows)
    assert report.rows == len(rows)
    assert report.rows - report.dropped_rows == len({part.line for part in fitted})
    assert [part.line for part in fitted] == sorted(part.line for part in fitted)
