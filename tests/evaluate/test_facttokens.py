"""Which tokens are names and numbers: by the characters they stand for, in rows as they are trained on."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.evaluate.facttokens import Counts, counts, fact_tokens, total
from rankwise.text.formats import Row
from rankwise.text.masks import IGNORE, Encoded, encode_row
from rankwise.text.template import ChatText
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatText:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(folder)
    return ChatText.from_folder(folder)


def conversation(*turns: str) -> Row:
    roles = ("user", "assistant")
    return Row(tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(turns)), None, 1, Path("rows"))


def marked(row: Encoded, chat: ChatText) -> str:
    """The text of the tokens that are facts, a bar between places."""
    flags = fact_tokens(row, chat)
    assert flags is not None
    learned = [label for label in row.labels[1:] if label != IGNORE]
    pieces = [chat.decode([label]) if fact else "|" for label, fact in zip(learned, flags, strict=True)]
    return " ".join("".join(pieces).replace("|", " ").split())


@pytest.mark.parametrize(
    ("turns", "facts"),
    [
        (("Who came?", "Then Clara Fenn came at 17."), "Clara Fenn 17"),
        (("When did Clara Fenn come?", "Then Clara Fenn came at 17."), "17"),  # the question has said the name
        (("Say 17.", "It is 17 and 17 again."), ""),
        (("Say it.", "It is 17 and 17 again."), "17"),  # the second time it has been said
        (("a?", "the 4th.", "b?", "the 5th and the 4th."), "4th 5th"),  # two answers, the second knows the first
        (("a?", "yes."), ""),
    ],
)
def test_facts_are_what_nobody_has_said_before(turns: tuple[str, ...], facts: str, chat: ChatText) -> None:
    assert marked(encode_row(conversation(*turns), chat), chat) == facts


def test_a_document_is_its_own_context(chat: ChatText) -> None:
    row = encode_row(Row((), "it was 1204 and then 1204 in Brix", 1, Path("rows")), chat)
    assert marked(row, chat) == "1204 Brix"


def test_there_is_a_flag_for_each_token_that_is_predicted(chat: ChatText) -> None:
    row = encode_row(conversation("a?", "It is 17."), chat)
    flags = fact_tokens(row, chat)
    assert flags is not None and len(flags) == sum(label != IGNORE for label in row.labels[1:])


def test_ids_that_are_not_their_own_text_cannot_be_told_apart(chat: ChatText) -> None:
    text = "appointments 17"
    ids, split = tuple(chat.encode(text)), tuple(one for sign in text for one in chat.encode(sign))
    assert chat.decode(split) == text and split != ids, "the same text, cut otherwise"
    assert fact_tokens(Encoded(ids, ids, 1), chat) is not None
    assert fact_tokens(Encoded(split, split, 1), chat) is None


def test_right_ones_are_counted_by_kind() -> None:
    assert counts((True, False, True, False), (True, True, False, False)) == Counts(2, 1, 2, 1)
    assert counts(None, (True, True)) == total([]) == Counts()
    assert (Counts(2, 1, 0, 0).fact_accuracy, Counts(2, 1, 0, 0).other_accuracy) == (0.5, None)


@given(st.lists(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=9), max_size=6))
def test_counts_of_rows_add_up_to_those_of_all_tokens(rows: list[list[tuple[bool, bool]]]) -> None:
    parts = [counts([f for f, _ in row], [r for _, r in row]) for row in rows]
    tokens = [token for row in rows for token in row]
    assert total(parts) == counts([f for f, _ in tokens], [r for _, r in tokens])
    assert sum(total(parts)[::2]) == len(tokens)
