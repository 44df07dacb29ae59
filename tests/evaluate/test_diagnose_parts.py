"""Examples, sources, calibration and intervals: the parts that a diagnosis is put together from."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.evaluate.calibration import calibration, calibration_error
from rankwise.evaluate.knowledge import asked_otherwise, belief, wording
from rankwise.evaluate.measures import mean_loss, share_of, share_of_loss
from rankwise.evaluate.prompts import (
    SHOTS,
    Library,
    Room,
    assign,
    cut,
    draw_examples,
    room_of,
    shots_that_fit,
    with_examples,
    with_source,
)
from rankwise.evaluate.retrieval import Index
from rankwise.evaluate.style import Exchange
from rankwise.text.template import ChatText
from tests.training import toy_model

PATIENTS = ("Anna has a fever.", "Ben has a cough and a fever and more and more words.", "A clinic opens at nine.")


def exchange(question: str, answer: str = "yes.") -> Exchange:
    return Exchange(({"role": "user", "content": question},), answer)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> ChatText:
    return ChatText.from_folder(toy_model(tmp_path_factory.mktemp("tiny")))


# -- retrieval -----------------------------------------------------------------------------------------


def test_the_row_with_the_rare_word_comes_first() -> None:
    index = Index(PATIENTS)
    assert index.nearest("Does ANNA have a fever?", 3)[0] == 0
    assert index.nearest("cough?", 3) == [1]
    assert index.nearest("nothing of this", 3) == []


def test_a_shorter_document_with_the_same_word_comes_first() -> None:
    assert Index(PATIENTS).nearest("fever", 2) == [0, 1]


def test_bm25_by_hand() -> None:
    # One document of two words and one of one; the query's word stands in the first alone:
    # ln(1 + 1.5 / 1.5) * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 2 / 1.5)) > 0, and nothing for the second.
    index = Index(["a b", "c"])
    assert index.nearest("a", 5) == [0] and index.nearest("c", 5) == [1] and Index([]).nearest("a", 5) == []


@given(st.lists(st.text("ab c", max_size=9), max_size=6), st.text("ab c", max_size=9), st.integers(0, 6))
def test_at_most_as_many_as_asked_and_each_shares_a_word(documents: list[str], query: str, most: int) -> None:
    found = Index(documents).nearest(query, most)
    assert len(found) <= most and len(set(found)) == len(found)
    assert all(set(documents[n].split()) & set(query.split()) for n in found)


# -- prompts -------------------------------------------------------------------------------------------


def test_draws_are_fixed_by_the_seed_and_never_repeat_a_row() -> None:
    draws = draw_examples(30, seed=3)
    assert draws == draw_examples(30, seed=3) != draw_examples(30, seed=4)
    assert all(len(set(draw)) == len(draw) == max(SHOTS) for draw in draws)
    assert draw_examples(3, seed=0) and all(sorted(draw) == [0, 1, 2] for draw in draw_examples(3, seed=0))


def test_examples_stand_between_the_system_turn_and_the_question() -> None:
    system, user = {"role": "system", "content": "s"}, {"role": "user", "content": "q"}
    found = with_examples((system, user), [exchange("q1", "a1"), exchange("q2", "a2")])
    assert [m["content"] for m in found] == ["s", "q1", "a1", "q2", "a2", "q"]
    assert [m.get("weight") for m in found if m["role"] == "assistant"] == [0, 0]
    assert with_examples((user,), []) == (user,)


def test_a_source_stands_before_the_last_question_alone() -> None:
    found = with_source(
        ({"role": "user", "content": "first"}, {"role": "user", "content": "When?"}), "It opens at nine."
    )
    assert found[0]["content"] == "first"
    assert found[1]["content"].endswith("\n\nIt opens at nine.\n\nWhen?")


def test_a_question_is_asked_after_examples_that_do_not_hold_its_source() -> None:
    assert assign([[1, 2], [3]], [[1, 9], [3, 8]]) == [1, 0]
    assert assign([[], [], [], []], [[0], [1]]) == [0, 1, 0, 1]  # nobody's source: taken in turn
    assert assign([[1, 2]], [[1, 2], [2, 5]]) == [1]  # no draw is free of it: the one with less


@given(st.integers(16, 100_000))
def test_the_parts_of_a_prompt_fit_into_the_positions(positions: int) -> None:
    room = room_of(positions)
    assert room.examples + room.question + room.source + room.answer <= positions
    assert min(room.examples, room.question, room.source, room.answer) > 0


def test_only_examples_that_fit_are_shown(chat: ChatText) -> None:
    draws = [[exchange(f"number {i}") for i in range(8)]]
    assert shots_that_fit(draws, chat, room_of(8192)) == (1, 4, 8)
    for count in (1, 4):
        needed = len(chat.encode_prompt(with_examples(({"role": "user", "content": "-"},), draws[0][:count])))
        assert shots_that_fit(draws, chat, Room(needed, 9, 9, 9)) == SHOTS[: SHOTS.index(count) + 1]
        assert count not in shots_that_fit(draws, chat, Room(needed - 1, 9, 9, 9))
    assert shots_that_fit([draws[0][:5]], chat, room_of(8192)) == (1, 4)
    assert shots_that_fit([[]], chat, room_of(8192)) == ()


def test_a_text_is_cut_to_its_tokens(chat: ChatText) -> None:
    text = "The clinic answers questions about prices."
    assert cut(text, 1000, chat) == text
    assert len(chat.encode(cut(text, 3, chat))) == 3 and text.startswith(cut(text, 3, chat))


def test_the_library_holds_questions_with_their_answers() -> None:
    library = Library([exchange("When does it open?", "At nine."), exchange("Who is Anna?", "A nurse.")])
    assert library.texts[library.nearest("Anna?", 1)[0]] == "Who is Anna?\nA nurse."


# -- calibration ---------------------------------------------------------------------------------------


def test_calibration_error_by_hand() -> None:
    # [0.8, 0.9): 0.85 sure, half right, 2 of 3 items; [0.2, 0.3): 0.25 sure, right.
    assert calibration_error([0.85, 0.85, 0.25], [True, False, True]) == pytest.approx((2 * 0.35 + 0.75) / 3)
    assert calibration_error([1.0, 1.0], [True, True]) == 0
    assert calibration_error([1.0, 1.0], [False, False]) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_calibration_error_is_a_share_inside_its_interval(items: list[tuple[float, bool]]) -> None:
    m = calibration([sure for sure, _ in items], [right for _, right in items], "x")
    assert 0 <= m.interval[0] <= m.value <= m.interval[1] <= 1 + 1e-9 and m.items == len(items)


def test_belief_is_the_probability_among_the_choices() -> None:
    best, sure = belief([2.0, 1.0, 2.0])
    assert best == 1 and sure == pytest.approx(np.exp(-1) / (np.exp(-1) + 2 * np.exp(-2)))
    assert belief([900.0, 5000.0]) == (0, 1.0)


@pytest.mark.parametrize(
    ("question", "otherwise"), [("What is the dose?", False), ("what is a DOSE", False), ("Which dose?", True)]
)
def test_a_wording_is_known_without_case_articles_and_marks(question: str, otherwise: bool) -> None:
    assert asked_otherwise(question, {wording("What is the dose?")}) is otherwise


# -- measures ------------------------------------------------------------------------------------------


def test_shares_and_losses_carry_intervals_items_and_sources() -> None:
    share = share_of([True] * 9 + [False], "x")
    assert share.value == 0.9 and share.items == 10 and share.interval[0] < 0.9 < share.interval[1]
    loss = mean_loss(np.array([4.0, 6.0, 0.0]), np.array([2, 2, 0]), "x")
    assert loss is not None and loss.value == 2.5 and loss.items == 4 and loss.interval[0] <= 2.5 <= loss.interval[1]
    assert "2 rows" in loss.source  # the row without tokens says nothing
    part = share_of_loss(np.array([1.0, 1.0]), np.array([2.0, 2.0]), "x")
    assert part is not None and part.value == 0.5 and part.interval == (0.5, 0.5)


def test_nothing_measured_is_none() -> None:
    assert mean_loss(np.zeros(3), np.zeros(3), "x") is None
    assert share_of_loss(np.zeros(0), np.zeros(0), "x") is None


def test_more_rows_make_a_narrower_interval() -> None:
    rng = np.random.default_rng(0)
    sums = rng.normal(20, 5, 400)
    few, many = (mean_loss(sums[:n], np.full(n, 10), "x") for n in (20, 400))
    assert few is not None and many is not None
    assert few.interval[1] - few.interval[0] > 2 * (many.interval[1] - many.interval[0])


def test_probes_may_carry_paraphrases(tmp_path: Path) -> None:
    from rankwise.errors import DataError
    from rankwise.text.probes import read_probes

    path = tmp_path / "facts.jsonl"
    path.write_text('{"question": "q", "answer": "a", "paraphrases": ["p1", "p2"]}\n')
    assert read_probes(path)[0].paraphrases == ("p1", "p2")
    path.write_text('{"question": "q", "answer": "a", "paraphrases": "p1"}\n')
    with pytest.raises(DataError, match="paraphrases is 'p1'"):
        read_probes(path)
