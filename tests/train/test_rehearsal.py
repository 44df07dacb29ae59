"""What would fail late is tried early, and the run is as if it had not been."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rankwise.errors import TrainingError
from rankwise.model.attach import attach
from rankwise.model.load import load_base
from rankwise.records import Rehearsed, Saved, Started
from rankwise.step import Batch, accumulate, collate
from rankwise.train.loop import Loop
from rankwise.train.rehearsal import ROWS, Rehearsal, some_rows
from tests.tiny import tiny_config
from tests.training import METHOD_NAMES, carry_out, losses, published, toy_model, toy_run, weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


def row(length: int) -> Any:
    """A few context tokens, the rest learned."""
    ids = tuple(3 + (i * 7 + length) % 200 for i in range(length))
    return SimpleNamespace(ids=ids, labels=(-100, -100, *ids[2:]))


ROWS_OF_ALL_LENGTHS = [row(n) for n in (4, 5, 7, 9, 12, 15, 20, 26, 33, 40, 40, 41)]


def batch(rows: Sequence[Any]) -> Batch:
    return collate([r.ids for r in rows], [r.labels for r in rows], 0)


def by_tokens_of_the_step(model: Any) -> Any:
    return lambda batches: accumulate(model, batches, backward=lambda loss: loss.backward(), autocast=nullcontext)


def by_tokens_of_each_pass(model: Any) -> Any:
    """As libraries did: every forward pass has a mean of its own."""

    def gradients(batches: Sequence[Batch]) -> None:
        for one in batches:
            accumulate(model, [one], backward=lambda loss: (loss / len(batches)).backward(), autocast=nullcontext)

    return gradients


@pytest.mark.parametrize("method", ["lora", "full", "bottleneck"])
def test_rows_one_by_one_and_at_once_give_one_gradient(folder: Path, method: str) -> None:
    model = attach(load_base(folder, dtype="fp32"), tiny_config(method, lora_dropout=0.5 if method == "lora" else None))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    drawn = torch.get_rng_state()
    trial = Rehearsal(model, ROWS_OF_ALL_LENGTHS, batch, by_tokens_of_the_step(model))
    gap = trial.accumulation_gap(4, "fp32")
    assert gap is not None and gap < 1e-5
    assert trial.longest(3) == (3, 41)
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in model.named_parameters())
    assert torch.equal(torch.get_rng_state(), drawn) and model.training


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_mean_of_means_is_refused(folder: Path, precision: str) -> None:
    model = attach(load_base(folder, dtype="fp32"), tiny_config("lora"))
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    trial = Rehearsal(model, ROWS_OF_ALL_LENGTHS, batch, by_tokens_of_each_pass(model))
    with pytest.raises(TrainingError, match=r"the gradient of 8 rows one by one differs .* by \d"):
        trial.accumulation_gap(8, precision)


def test_rows_that_are_tried_differ_in_length_and_take_no_more_than_the_largest_pass() -> None:
    chosen = some_rows(ROWS_OF_ALL_LENGTHS, 6)
    assert len(chosen) == ROWS and len({len(r.ids) for r in chosen}) > 3
    assert ROWS * max(len(r.ids) for r in chosen) <= 6 * 41
    assert 2 <= len(some_rows(ROWS_OF_ALL_LENGTHS, 1)) < ROWS
    assert some_rows([row(9), row(9)], 1) == [] and len(some_rows([row(9), row(9)], 2)) == 2


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_run_rehearses_once_after_its_first_step(folder: Path, tmp_path: Path, method: str) -> None:
    run = toy_run(tmp_path, folder, method, train={"packing": False})
    events = carry_out(run, stop_after=3)
    assert [e.event for e in events[:4]] == ["started", "validation", "step", "rehearsed"]
    (found,) = (e for e in events if isinstance(e, Rehearsed))
    assert found.accumulation_gap is not None and found.accumulation_gap < 0.1
    config = run.plan().verdict.config
    assert config is not None and found.longest[0] == config.per_device_train_batch_size
    assert found.longest[1] == run.plan().facts.data.longest
    saved = next(e for e in events if isinstance(e, Saved))
    assert found.checkpoint_bytes == pytest.approx(saved.bytes, abs=500)
    more = carry_out(run, resume=True)
    assert not any(isinstance(e, Rehearsed) for e in more)
    assert next(e for e in more if isinstance(e, Started)).step == 3


def test_the_run_is_as_if_it_had_not_been(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = {"name": "lora", "lora_dropout": 0.2}
    rehearsed = toy_run(tmp_path / "a", folder, method)
    carry_out(rehearsed)
    monkeypatch.setattr(Loop, "_rehearse", lambda self: iter(()))
    plain = toy_run(tmp_path / "b", folder, method)
    carry_out(plain)
    assert losses(rehearsed.events()) == losses(plain.events())
    assert weights(published(rehearsed)) == weights(published(plain))
