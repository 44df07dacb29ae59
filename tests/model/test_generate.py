"""Answers: batched equals single, stops where training says, and streams the same text."""

from math import exp
from pathlib import Path

import pytest

from rankwise.errors import ModelError
from rankwise.model.attach import attach
from rankwise.model.generate import Said, answer, answer_ids, say, stream
from rankwise.model.likelihood import IGNORE, row_losses
from rankwise.model.load import load_base
from rankwise.text.masks import Encoded
from rankwise.text.template import ChatText
from tests.tiny import tiny_config, tiny_llama

CONVERSATIONS = [
    [{"role": "user", "content": content}]
    for content in ("yes", "What does the clinic cost?", "", "a" * 60, "Öffnungszeiten?", "hours 0123", "no", "prices")
]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_batched_answers_equal_single_ones(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    model, text = load_base(folder, dtype="fp32"), ChatText.from_folder(folder)
    single = answer(model, text, CONVERSATIONS, 12, batch_size=1)
    seen: list[int] = []
    assert answer(model, text, CONVERSATIONS, 12, batch_size=3, on_batch=seen.append) == single
    assert answer(model, text, CONVERSATIONS, 12, batch_size=16) == single
    assert seen == [3, 3, 2]
    assert len(set(single)) > 3, "the tiny model must not say the same to all"


def test_streamed_is_the_same_text(llama: Path) -> None:
    model, text = load_base(llama, dtype="fp32"), ChatText.from_folder(llama)
    for conversation, expected in zip(CONVERSATIONS, answer(model, text, CONVERSATIONS, 12), strict=True):
        assert "".join(stream(model, text, conversation, 12)) == expected


def test_closing_the_stream_stops_generation(llama: Path) -> None:
    model, text = load_base(llama, dtype="fp32"), ChatText.from_folder(llama)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    handle = model.register_forward_hook(count)
    pieces = stream(model, text, CONVERSATIONS[1], 200)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    handle.remove()
    assert calls < 150


def test_stops_at_the_stop_token_and_leaves_it_out(llama: Path) -> None:
    model, text = load_base(llama, dtype="fp32"), ChatText.from_folder(llama)
    seen: list[list[int]] = []

    class Stopping:
        pad_token_id, eos_token_id, stop_token_ids = 2, 2, (2,)
        encode_prompt = staticmethod(text.encode_prompt)

        def decode(self, ids: list[int]) -> str:
            seen.append(ids)
            return text.decode(ids)

    stopping = Stopping()
    answer(model, stopping, CONVERSATIONS[:1], 8)
    free = seen[0]
    stopping.stop_token_ids = (2, free[3])
    answer(model, stopping, CONVERSATIONS[:1], 8)
    assert seen[1] == free[: free.index(free[3])]


def test_generation_config_of_the_model_does_not_leak_in(llama: Path) -> None:
    model, text = load_base(llama, dtype="fp32"), ChatText.from_folder(llama)
    plain = answer(model, text, CONVERSATIONS, 12)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.min_new_tokens = 4
    assert answer(model, text, CONVERSATIONS, 12) == plain
    assert model.generation_config.repetition_penalty == 5.0
    adapted = attach(model, tiny_config())
    assert answer(adapted, text, CONVERSATIONS, 12) == plain and adapted.training


def test_the_end_of_the_context(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path, positions=64, dtype="fp32")
    model, text = load_base(folder, dtype="fp32"), ChatText.from_folder(folder)
    near = [{"role": "user", "content": "z" * 30}]
    room = 64 - len(text.encode_prompt(near))
    assert 0 < room < 40
    alone = answer(model, text, [near], 100)
    assert answer(model, text, [near, CONVERSATIONS[0]], 100)[0] == alone[0]
    with pytest.raises(ModelError, match="64 positions"):
        answer(model, text, [[{"role": "user", "content": "z" * 80}]], 4)


def test_an_answer_knows_how_probable_it_was_and_how_it_ended(llama: Path) -> None:
    """The probabilities are those of a forward pass over the answer; a batch changes nothing."""
    model, text = load_base(llama, dtype="fp32"), ChatText.from_folder(llama)
    said = say(model, text, CONVERSATIONS, 12, batch_size=3)
    assert [s.ids for s in said] == answer_ids(model, text, CONVERSATIONS, 12)
    for conversation, one in zip(CONVERSATIONS, said, strict=True):
        assert len(one.log_probs) == len(one.ids) and one.ended is (len(one.ids) < 12)
        if one.ids:
            prompt = text.encode_prompt(conversation)
            row = Encoded((*prompt, *one.ids), (*[IGNORE] * len(prompt), *one.ids), 0)
            ((nats, count),) = row_losses(model, [row])
            assert sum(one.log_probs) == pytest.approx(-nats, abs=1e-3)
            assert one.probability == pytest.approx(exp(-nats / count), abs=1e-4)
    assert Said([], True, []).probability is None


def test_nothing_asked_nothing_answered(llama: Path) -> None:
    assert answer(load_base(llama, dtype="fp32"), ChatText.from_folder(llama), [], 4) == []
