"""Losses against transformers' own, and logits at the end of prompts."""

from pathlib import Path

import pytest
import torch

from rankwise.model import likelihood
from rankwise.model.likelihood import IGNORE, final_logits, row_losses, row_reads
from rankwise.model.load import load_base
from rankwise.text import masks
from rankwise.text.masks import Encoded

IDS = (1, 40, 41, 42, 43, 44, 45, 2)


def test_ignore_is_the_text_layers() -> None:
    assert IGNORE == masks.IGNORE


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("chunk", [1024, 2])
def test_losses_are_transformers_losses(
    kind: str, chunk: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "CHUNK", chunk)
    model = load_base(request.getfixturevalue(kind), dtype="fp32")
    partly = (IGNORE,) * 4 + IDS[4:]
    rows = [Encoded(IDS, IDS, 1), Encoded(IDS, partly, 2), Encoded(IDS, (IGNORE,) * 8, 3)]
    found = row_losses(model, rows)
    assert [n for _, n in found] == [7, 4, 0] and found[2][0] == 0.0
    for row, (loss, count) in zip(rows[:2], found[:2], strict=True):
        theirs = model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([row.labels])).loss.item()
        assert loss / count == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("chunk", [1024, 2])
def test_reads_are_the_losses_and_what_greedy_decoding_would_write(
    chunk: int, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "CHUNK", chunk)
    model = load_base(llama, dtype="fp32")
    likeliest = model(torch.tensor([IDS])).logits[0].argmax(-1).tolist()
    hit = (*IDS[:4], likeliest[3], *IDS[5:])  # one token is what the model says after the first four
    rows = [Encoded(ids, (IGNORE,) * 2 + ids[2:], 1) for ids in (IDS, hit)] + [Encoded(IDS, (IGNORE,) * 8, 3)]
    reads = row_reads(model, rows)
    assert [(read.loss, len(read.right)) for read in reads] == row_losses(model, rows)
    for row, read in zip(rows[:2], reads, strict=False):
        said = model(torch.tensor([row.ids])).logits[0].argmax(-1).tolist()
        assert read.right == tuple(said[i - 1] == row.ids[i] for i in range(2, 8))
    assert reads[1].right[2] and reads[2].right == ()


def test_autocast_is_near_and_the_mode_comes_back(llama: Path) -> None:
    model = load_base(llama, dtype="fp32").train()
    exact = row_losses(model, [Encoded(IDS, IDS, 1)])[0][0]
    rounded = row_losses(model, [Encoded(IDS, IDS, 1)], autocast="bf16")[0][0]
    assert rounded != exact and rounded == pytest.approx(exact, rel=0.1)
    assert model.training


def test_final_logits(untied: Path) -> None:
    model = load_base(untied, dtype="bf16")
    found = final_logits(model, [IDS, IDS[:3]])
    assert found.shape == (2, 320) and found.dtype == torch.float32
    assert torch.equal(found[1], model(torch.tensor([IDS[:3]])).logits[0, -1].float())
