"""Ids into text: stop strings over token borders, characters over token borders, log-probabilities with their text."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.serve.engine import Piece
from rankwise.serve.gateway.answers import AnswerText
from rankwise.text.template import ChatText
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatText:
    folder = tmp_path_factory.mktemp("text")
    tiny_tokenizer(folder)
    return ChatText.from_folder(folder)


def said(chat: ChatText, text: str, stops: tuple[str, ...] = ()) -> tuple[list[str], AnswerText]:
    """What is let out with each id, and the end."""
    answer, out = AnswerText(chat, stops), []
    for token in chat.encode(text):
        out.append(answer.add(Piece((token,))))
        if answer.finish:
            return out, answer
    out.append(answer.add(Piece((), finish="length")))
    return out, answer


@pytest.mark.parametrize("text", ["plain words", "grüße 你好 👩‍🚀 \u0301e", "", " leading", "tail \n\n"])
def test_text_comes_out_as_it_went_in(chat: ChatText, text: str) -> None:
    out, answer = said(chat, text)
    assert "".join(out) == text and answer.finish == "length"


def test_a_character_is_held_back_until_it_is_whole(chat: ChatText) -> None:
    out, _ = said(chat, "🚀")
    assert len(out) > 2 and out[-2] == "🚀" and not any(out[:-2])


def test_an_answer_cut_within_a_character_says_so_at_its_end(chat: ChatText) -> None:
    answer, ids = AnswerText(chat), chat.encode("ok 🚀")
    out = "".join(answer.add(Piece((token,))) for token in ids[:-1])
    assert out == "ok " and answer.add(Piece((), finish="length")) == chat.decode(ids[:-1])[3:]


def test_a_stop_string_is_cut_over_token_borders(chat: ChatText) -> None:
    out, answer = said(chat, "one two END three", ("END",))
    assert "".join(out) == "one two " and answer.finish == "stop"
    assert "".join(said(chat, "one ENxD two", ("END", "zzz"))[0]) == "one ENxD two"


def test_what_looks_like_a_stop_string_is_held_back_and_then_let_out(chat: ChatText) -> None:
    out, _ = said(chat, "a E", ("END",))
    assert out[-1] == "E" and "".join(out[:-1]) == "a "


@given(
    text=st.text(alphabet="ab🚀é ", max_size=24),
    stops=st.lists(st.text(alphabet="ab🚀 ", min_size=1, max_size=4), max_size=3),
)
@settings(max_examples=200, deadline=None)
def test_any_text_ends_before_the_first_stop_string_that_is_complete_first(
    chat: ChatText, text: str, stops: list[str]
) -> None:
    """Against the plain definition: at the first character that completes a stop string, cut where the earliest of
    those that are there begins.
    """
    wanted = text
    for end in range(len(text) + 1):
        places = [place for stop in stops if (place := text[:end].find(stop)) >= 0]
        if places:
            wanted = text[: min(places)]
            break
    out, answer = said(chat, text, tuple(stops))
    assert "".join(out) == wanted or len("".join(out)) <= len(wanted)
    assert text.startswith("".join(out))
    assert not any(stop in "".join(out) for stop in stops)
    assert (answer.finish == "stop") == any(stop in text for stop in stops)


def test_log_probabilities_stand_with_their_text(chat: ChatText) -> None:
    ids, answer, found = chat.encode("one two END"), AnswerText(chat, ("END",)), []
    for token in ids:
        out = answer.add(Piece((token,), (-0.5,), (((token, -0.5),),)))
        found += [(seen.id, seen.start) for seen in answer.seen()]
        assert out is not None
    before = chat.encode("one two ")
    assert [token for token, _ in found] == before
    assert [start for _, start in found] == [len(chat.decode(before[:place])) for place in range(len(before))]


def test_a_prompt_gets_no_end_of_text(tmp_path: Path, chat: ChatText) -> None:
    assert chat.encode_opening("one") == chat.encode("one")
