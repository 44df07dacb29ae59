"""What prompts share is read once, and the numbers stay the same."""

from pathlib import Path

import pytest
import torch

from rankwise.model.generate import answer_ids
from rankwise.model.likelihood import IGNORE, row_losses
from rankwise.model.load import load_base
from rankwise.model.prefix import WORTH, read_prefix, repeated, shared_length, token_losses
from rankwise.text.masks import Encoded
from rankwise.text.template import ChatText

SHARED = tuple(range(5, 5 + WORTH + 8))


def row(*own: int, labels: int, shared: tuple[int, ...] = SHARED) -> Encoded:
    ids = (*shared, *own)
    return Encoded(ids, (*[IGNORE] * (len(ids) - labels), *ids[len(ids) - labels :]), 1)


ROWS = [row(50, 60, 70, labels=2), row(51, labels=1), row(50, 61, 71, 81, 91, labels=4), row(9, 8, 7, labels=3)]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_losses_are_those_of_rows_alone(family: str, request: pytest.FixtureRequest) -> None:
    model = load_base(request.getfixturevalue(family), dtype="fp32")
    for rows in (ROWS, [row(3, 4, 5, 6, labels=3, shared=(7,)), row(8, 9, labels=1, shared=())], ROWS[:1]):
        found = token_losses(model, rows)
        assert [len(x) for x in found] == [r.supervised for r in rows]
        assert [sum(x) for x in found] == pytest.approx([loss for loss, _ in row_losses(model, rows)], rel=1e-4)


def test_every_token_has_its_own_loss_in_order(llama: Path) -> None:
    model = load_base(llama, dtype="fp32")
    longest = ROWS[2]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([longest.ids])).logits[0]
    at = [i for i, label in enumerate(longest.labels) if label != IGNORE]
    expected = [-torch.log_softmax(logits[i - 1].float(), -1)[longest.ids[i]].item() for i in at]
    assert token_losses(model, ROWS)[2] == pytest.approx(expected, rel=1e-3)


def test_a_row_without_labels_has_no_losses_and_the_first_token_none(llama: Path) -> None:
    model = load_base(llama, dtype="fp32")
    unlabelled, whole = Encoded((5, 6), (IGNORE, IGNORE), 1), Encoded((5, 6, 7), (5, 6, 7), 2)
    assert [len(x) for x in token_losses(model, [unlabelled, whole])] == [0, 2]
    assert token_losses(model, []) == []


def test_progress_is_told_for_every_row(llama: Path) -> None:
    told: list[int] = []
    token_losses(load_base(llama, dtype="fp32"), ROWS * 5, on_batch=told.append)
    assert sum(told) == len(ROWS) * 5 and len(told) > 1


def test_a_copy_for_a_batch_leaves_the_memory_as_it_is(llama: Path) -> None:
    model = load_base(llama, dtype="fp32")
    cache = read_prefix(model, SHARED)
    assert cache is not None and cache.get_seq_length() == len(SHARED)
    mine = repeated(cache, 3)
    model(input_ids=torch.tensor([[1], [2], [3]]), past_key_values=mine)
    assert mine.get_seq_length() == len(SHARED) + 1 and cache.get_seq_length() == len(SHARED)


@pytest.mark.parametrize(
    ("prompts", "length"),
    [([[1, 2, 3], [1, 2]], 2), ([[1], [2]], 0), ([[1, 2]], 2), ([[1, 2, 9], [1, 3, 9], [1, 2, 9]], 1)],
)
def test_shared_length(prompts: list[list[int]], length: int) -> None:
    assert shared_length(prompts) == length


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_answers_are_the_same_when_the_beginning_is_read_once(family: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(family)
    model, chat = load_base(folder, dtype="fp32"), ChatText.from_folder(folder)
    before = [{"role": "user", "content": "open " * 20}, {"role": "assistant", "content": "yes"}]
    asked = [[*before, {"role": "user", "content": q}] for q in ("prices", "no", "thank you please", "hours?")]
    alone = answer_ids(model, chat, asked, 12)
    assert answer_ids(model, chat, asked, 12, share_prefix=True) == alone
    assert answer_ids(model, chat, asked, 12, batch_size=3, share_prefix=True) == alone
    assert any(alone)
