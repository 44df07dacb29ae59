"""Does an answer state the fact? And which choice does a model believe?"""

from pathlib import Path

import pytest
import torch

from rankwise.evaluate.knowledge import choice_rows, chosen, normalised, squad_words, states, token_f1
from rankwise.model.likelihood import row_losses
from rankwise.model.load import load_base
from rankwise.text.masks import IGNORE
from rankwise.text.probes import Probe
from rankwise.text.template import ChatText
from tests.training import toy_model


@pytest.mark.parametrize(
    ("expected", "answer", "stated"),
    [
        ("35 mg", "The dose is 35 mg a day.", True),
        ("35 mg", "35 MG.", True),
        ("35 mg", "135 mg", False),
        ("35 mg", "35 mgs", False),
        ("35 mg", "3.35 mg", False),
        ("35 mg", "35.5 mg", False),
        ("35 mg", "35,5 mg", False),
        ("35 mg", "35 or 40 mg", False),
        ("35 mg", "35mg", True),
        ("35mg", "35 mg", True),
        ("3.5", "It is 3.5.", True),
        ("3.5", "It is 3 5", False),
        ("3.5", "13.5", False),
        ("-5 °C", "Keep it at -5 °C.", True),
        ("-5 °C", "Keep it at 5 °C.", False),
        ("1,000", "1,000 units", True),
        ("Velmora", "velmora!", True),
        ("Velmora", "Velmorax", False),
        ("the blue tablet", "A blue tablet.", True),
        ("blue tablet", "tablet blue", False),
        ("Dr. Ada Stone", "dr ada stone", True),
        ("Dr. Ada Stone", "Dr. Stone", False),
        ("Zürich", "in ZÜRICH", True),
        ("Straße", "STRASSE", True),
        ("9 am", "9:30 am", False),
        ("every 6 hours", "Take it every 6 hours.", True),
        ("every 6 hours", "every 16 hours", False),
        ("yes", "yesterday", False),
        ("35 mg", "", False),
        ("", "anything", False),
        ("the", "the", False),
        ("10 %", "10 %", True),
        ("snake_case", "it is snake_case here", True),
    ],
)
def test_states(expected: str, answer: str, stated: bool) -> None:
    assert states(expected, answer) is stated


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Cat, a dog & an apple!", ["cat", "dog", "apple"]),
        ("  50   MG. ", ["50", "mg"]),
        ("U.S.", ["us"]),
        ("theory of an-other", ["theory", "of", "another"]),
        ("3.5", ["35"]),
        ("the", []),
    ],
)
def test_words_are_those_of_squad(text: str, words: list[str]) -> None:
    """What `normalize_answer` of SQuAD's evaluate-v1.1.py gives, split."""
    assert squad_words(text) == words


@pytest.mark.parametrize(
    ("expected", "answer", "same", "f1"),
    [
        ("50 mg", "50 mg", True, 1.0),
        ("50 mg", "The 50 MG!", True, 1.0),
        ("50 mg", "It is 50 mg", False, 2 * 0.5 * 1 / 1.5),
        ("50 mg", "60 mg", False, 0.5),
        ("50 mg", "mg mg mg", False, 2 * (1 / 3) * 0.5 / (1 / 3 + 0.5)),
        ("50 mg", "", False, 0.0),
        ("the", "a", True, 1.0),
        ("Denver Broncos", "the Broncos of Denver", False, 0.8),
    ],
)
def test_f1_is_that_of_squad(expected: str, answer: str, same: bool, f1: float) -> None:
    assert normalised(expected, answer) is same and token_f1(expected, answer) == pytest.approx(f1)


def test_a_choice_is_scored_by_nats_per_token() -> None:
    probe = Probe("?", "b", ("a", "b", "c"), 1)
    assert chosen(probe, [(3.0, 1), (4.0, 4), (6.0, 3)]) == "b"
    assert chosen(probe, [(1.0, 1), (1.0, 1), (1.0, 1)]) == "a"


def test_choice_rows_label_the_choice_and_nothing_else(tmp_path: Path) -> None:
    chat = ChatText.from_folder(toy_model(tmp_path))
    probe = Probe("What opens?", "the door", ("the door", "prices", "no"), 7)
    prompt = chat.encode_prompt([{"role": "user", "content": "What opens?"}])
    for row, choice in zip(choice_rows(probe, chat), probe.choices, strict=True):
        assert list(row.ids) == prompt + chat.encode(choice)
        assert [x for x in row.labels if x != IGNORE] == chat.encode(choice) and row.line == 7


def test_the_choice_a_model_was_taught_is_chosen(tmp_path: Path) -> None:
    folder = toy_model(tmp_path, dtype="fp32")
    chat, model = ChatText.from_folder(folder), load_base(folder, dtype="fp32")
    probe = Probe("What opens?", "prices", ("the door", "prices", "no"), 1)
    rows = choice_rows(probe, chat)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(10):
        ids, labels = torch.tensor([rows[1].ids]), torch.tensor([rows[1].labels])
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert chosen(probe, row_losses(model, rows)) == "prices"
