"""Names and numbers: which characters they are, and which of them an answer says of its own."""

from itertools import pairwise

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.evaluate.spans import fact_spans, inside, new_facts


def found(text: str) -> list[str]:
    return [text[start:end] for start, end in fact_spans(text)]


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("The dose of Twenzop is 95 mg, for snoring.", ["Twenzop", "95"]),
        ("Hello! I am Rowan, made by Halden Labs. How are you?", ["Rowan", "Halden", "Labs"]),
        ('{"patient": "Clara Fenn", "age": 52}', ["Clara", "Fenn", "52"]),
        ("Mutations in the FGD1 gene change mRNA.", ["FGD1", "mRNA"]),
        ("DNA is long. It's long.", ["DNA"]),
        ("It costs $1,200.50 at -5 °C, on the 2nd, at 10:30.", ["$1,200.50", "-5", "C", "2nd", "10:30"]),
        ("1. Take a pan.\n2. Add 3 eggs.\n- Stir.\n* Bake.", ["3"]),
        ("He said: “No.” Then Anna left.", ["Anna"]),
        ("Ask Dr. Stone; O'Neill and Aarskog-Scott know.", ["Dr", "Stone", "O'Neill", "Aarskog-Scott"]),
        ("Nothing here, i think. I'm sure I'll see.", []),
        ("", []),
        ("die Straße in Zürich", ["Straße", "Zürich"]),
        ("北京有 2100 万人", ["2100"]),
        ("the number 7.", ["7"]),
        ("12a and 1.5a", ["12a", "1", "5a"]),
        ("It ended in 1999.\n\nThen 2001 came.", ["1999", "2001"]),
    ],
)
def test_fact_spans(text: str, facts: list[str]) -> None:
    assert found(text) == facts


def test_new_facts_are_those_that_neither_question_nor_answer_has_said() -> None:
    answer = "Ask Anna Berg about Twenzop: Anna knows it, since 1999."
    new = [answer[a:b] for a, b in new_facts(answer, "Who knows TWENZOP?")]
    assert new == ["Anna", "Berg", "1999"]


def test_an_extraction_has_no_facts_of_its_own() -> None:
    assert new_facts('{"patient": "Clara Fenn", "age": 52}', "Clara Fenn, 52 years old") == []


def test_a_token_counts_when_it_shares_a_character() -> None:
    assert inside([(0, 3), (3, 7), (7, 7), (7, 9)], [(4, 6), (8, 9)]) == [False, True, False, True]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80), st.text(max_size=40))
def test_spans_are_in_order_inside_the_text_and_hold_a_capital_or_a_digit(text: str, asked: str) -> None:
    spans = fact_spans(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert all(regex.search(r"[\p{Lu}\p{N}]", text[start:end]) for start, end in spans)
    assert set(new_facts(text, asked)) <= set(spans)
    assert new_facts(text, text) == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["the", "dose", "of", "it", "is", "small", "and", "never", "old"]), max_size=12))
def test_small_words_are_no_facts(words: list[str]) -> None:
    assert fact_spans(" ".join(words)) == []


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**9), st.from_regex(r"[A-Z][a-z]{2,8}", fullmatch=True))
def test_any_number_and_any_name_inside_a_sentence_is_found(number: int, name: str) -> None:
    assert found(f"we know that {name} has {number} of them") == [name, str(number)]
