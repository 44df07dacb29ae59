"""Each row chooses by its own settings; no neighbour changes a choice."""

from collections import Counter
from typing import Any

import pytest
import torch

from rankwise.serve.embedded.sampling import Draw, choose

LOGITS = torch.randn(5, 300, generator=torch.Generator().manual_seed(0))


def draw(**more: Any) -> Draw:
    settings: dict[str, Any] = {
        "temperature": 0.0,
        "top_p": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "logprobs": None,
        "seed": None,
    }
    return Draw(**{**settings, **more})


def tokens(draws: list[Draw], steps: int = 1) -> list[list[int]]:
    return [[chosen.token for chosen in choose(LOGITS[: len(draws)], draws)] for _ in range(steps)]


def test_greedy_rows_take_the_likeliest_token_beside_sampled_ones() -> None:
    mixed = [draw(), draw(temperature=1.5, seed=1), draw(), draw(temperature=0.7, top_p=0.5), draw()]
    for found in tokens(mixed, 5):
        assert [found[i] for i in (0, 2, 4)] == LOGITS.argmax(-1)[[0, 2, 4]].tolist()


def test_a_seed_repeats_its_draw_whatever_the_neighbours_do() -> None:
    first = [row[0] for row in tokens([draw(temperature=1.0, seed=7)], 20)]
    beside = [row[0] for row in tokens([draw(temperature=1.0, seed=7), draw(temperature=2.0, seed=7), draw()], 20)]
    assert first == beside
    assert first != [row[0] for row in tokens([draw(temperature=1.0, seed=8)], 20)]


@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_draws_have_the_shares_of_the_distribution(top_p: float) -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    one = draw(temperature=0.8, top_p=top_p, seed=0)
    found = Counter(choose(logits, [one])[0].token for _ in range(4000))
    shares = torch.softmax(logits[0] / 0.8, -1)
    if top_p < 1:
        shares[1:] = 0  # the first alone has more than that
    for token, share in enumerate((shares / shares.sum()).tolist()):
        assert found[token] / 4000 == pytest.approx(share, abs=0.03)


def test_top_p_keeps_the_least_set_that_reaches_it() -> None:
    flat = torch.zeros(1, 5000)
    one = draw(temperature=1.0, top_p=0.9, seed=0)
    found = {choose(flat, [one])[0].token for _ in range(200)}
    assert len(found) > 150  # more than the few that are looked at first would give


def test_penalties_are_those_of_openai() -> None:
    logits = torch.tensor([[1.0, 0.95, 0.0]])
    often = draw(frequency_penalty=0.1)
    assert [choose(logits, [often])[0].token for _ in range(4)] == [0, 1, 0, 1]
    once = draw(presence_penalty=2.0)
    assert [choose(logits, [once])[0].token for _ in range(4)] == [0, 1, 2, 0]


def test_probabilities_are_the_models_own() -> None:
    chosen = choose(LOGITS[:1], [draw(temperature=3.0, top_p=0.2, presence_penalty=1.0, logprobs=3, seed=0)])[0]
    known = LOGITS[0].log_softmax(-1)
    assert chosen.logprob == pytest.approx(float(known[chosen.token]), abs=1e-5)
    assert [token for token, _ in chosen.likely] == known.topk(3).indices.tolist()
