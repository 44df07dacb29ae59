"""One step: the loss is that of the supervised tokens, whatever the batches, and a bad loss changes nothing."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from rankwise.model.load import load_base
from rankwise.step import IGNORE, Batch, collate, summed_loss, training_step
from tests.training import toy_model

PAD = 2
Row = tuple[list[int], list[int]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("step"), dtype="fp32")


@pytest.fixture
def model(folder: Path) -> torch.nn.Module:
    return load_base(folder, dtype="fp32").train()


def rows(count: int = 8) -> list[Row]:
    """Different lengths, different shares of supervised tokens."""
    draw = torch.Generator().manual_seed(5)
    found = []
    for i in range(count):
        ids = torch.randint(3, 300, (4 + 3 * i,), generator=draw).tolist()
        labels = [IGNORE] * (2 + i) + ids[2 + i :]
        found.append((ids, labels))
    return found


def batches(given: Sequence[Row], size: int) -> list[Batch]:
    groups = [given[i : i + size] for i in range(0, len(given), size)]
    return [collate([r[0] for r in g], [r[1] for r in g], PAD) for g in groups]


def step(
    model: torch.nn.Module, given: Sequence[Batch], rate: float = 0.0
) -> tuple[float, float, dict[str, torch.Tensor]]:
    """(loss, norm, gradients as the optimizer would have seen them)."""
    gradients: dict[str, torch.Tensor] = {}

    def clip() -> torch.Tensor:
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            gradients[name] = parameter.grad.clone()
        return torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)

    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    loss, norm = training_step(
        model, given, optimizer, backward=lambda x: x.backward(), clip=clip, autocast=nullcontext
    )
    return float(loss), float(norm), gradients


def plain_loss(model: torch.nn.Module, given: Sequence[Row]) -> torch.Tensor:
    """The same number the plain way: one row at a time, all logits, transformers' own shift, mean over all tokens."""
    total, count = torch.zeros(()), 0
    for ids, labels in given:
        supervised = sum(label != IGNORE for label in labels[1:])
        mean = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]), use_cache=False).loss
        total, count = total + mean * supervised, count + supervised
    return total / count


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_batches_of_any_size_give_the_same_loss_and_gradient(model: torch.nn.Module, size: int) -> None:
    one, norm, expected = step(model, batches(rows(), 1))
    other, other_norm, found = step(model, batches(rows(), size))
    assert other == pytest.approx(one, rel=1e-5) and other_norm == pytest.approx(norm, rel=1e-4)
    for name in expected:
        assert torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-5), name


def test_the_loss_is_that_of_plain_transformers(model: torch.nn.Module) -> None:
    reference = plain_loss(model, rows())
    reference.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    loss, _, found = step(model, batches(rows(), 4))
    assert loss == pytest.approx(reference.item(), rel=1e-5)
    for name in expected:
        assert torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-5), name


def test_the_loss_is_not_the_mean_of_means(model: torch.nn.Module) -> None:
    means = [step(model, [batch])[0] for batch in batches(rows(), 1)]
    assert abs(sum(means) / len(means) - step(model, batches(rows(), 1))[0]) > 1e-3


def test_logits_exist_only_at_kept_positions(model: torch.nn.Module) -> None:
    seen = []
    handle = model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    ids = list(range(3, 33))
    batch = collate([ids], [[IGNORE] * 25 + ids[25:]], PAD)
    summed_loss(model, batch)
    handle.remove()
    assert batch.keep.tolist() == [-6, -5, -4, -3, -2] and seen == [(1, 5, 320)]


def test_a_step_moves_the_weights_and_clears_the_gradient(model: torch.nn.Module) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    _, _, gradients = step(model, batches(rows(), 4), rate=0.5)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name] - 0.5 * gradients[name])
        assert parameter.grad is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_leaves_the_weights_alone(
    model: torch.nn.Module, bad: float, where: str
) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)

    def backward(loss: torch.Tensor) -> None:
        loss.backward()
        if where == "gradient":
            next(model.parameters()).grad.view(-1)[0] = bad  # type: ignore[union-attr]

    if where == "loss":
        model.lm_head.register_forward_hook(lambda module, inputs, output: output * bad)
    loss, norm = training_step(
        model,
        batches(rows(), 4),
        optimizer,
        backward=backward,
        clip=lambda: torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0),
        autocast=nullcontext,
    )
    assert not (torch.isfinite(torch.tensor([loss, norm])).all())
    assert not optimizer.state
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.grad is None


@st.composite
def some_rows(draw: st.DrawFn) -> list[Row]:
    found = []
    for _ in range(draw(st.integers(1, 6))):
        ids = draw(st.lists(st.integers(3, 300), min_size=2, max_size=20))
        mask = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
        found.append((ids, [token if keep else IGNORE for token, keep in zip(ids, mask, strict=True)]))
    return found


@given(some_rows())
@settings(max_examples=200, deadline=None)
def test_collate_keeps_every_token_and_every_label_once(given_rows: list[Row]) -> None:
    batch = collate([r[0] for r in given_rows], [r[1] for r in given_rows], PAD)
    longest = max(len(ids) for ids, _ in given_rows)
    assert batch.input_ids.shape == (len(given_rows), longest)
    assert batch.tokens == sum(len(ids) for ids, _ in given_rows)
    assert batch.supervised == sum(label != IGNORE for _, labels in given_rows for label in labels[1:])
    assert batch.keep.tolist() == sorted(set(batch.keep.tolist()))
    assert (batch.attention_mask is None) == all(len(ids) == longest for ids, _ in given_rows)
    for i, (ids, labels) in enumerate(given_rows):
        assert batch.input_ids[i].tolist() == ids + [PAD] * (longest - len(ids))
        if batch.attention_mask is not None:
            assert batch.attention_mask[i].tolist() == [1] * len(ids) + [0] * (longest - len(ids))
        found = {
            longest + int(at) + 1: int(target)
            for at, target in zip(batch.keep, batch.targets[i], strict=True)
            if target != IGNORE
        }
        assert found == {t: label for t, label in enumerate(labels) if t and label != IGNORE}


@given(some_rows())
@settings(max_examples=50, deadline=None)
def test_targets_line_up_with_the_logits_that_predict_them(given_rows: list[Row]) -> None:
    """With a head that says the position's number, the loss is what hand-written indexing gives."""
    batch = collate([r[0] for r in given_rows], [r[1] for r in given_rows], PAD)
    longest = batch.input_ids.shape[1]
    table = torch.randn(longest, 301, generator=torch.Generator().manual_seed(0))

    class Positions(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, logits_to_keep: torch.Tensor, **_: object) -> object:
            class Out:
                logits = table[logits_to_keep].expand(len(input_ids), -1, -1)

            return Out

    expected = sum(
        cross_entropy(table[t - 1], torch.tensor(label)).item()
        for _, labels in given_rows
        for t, label in enumerate(labels)
        if t and label != IGNORE
    )
    if batch.supervised:
        assert summed_loss(Positions(), batch).item() == pytest.approx(expected, rel=1e-4, abs=1e-4)
