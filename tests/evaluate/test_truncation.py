"""Held-out loss by rank: a cut model is the dense truncation, shares are what losses say, and nothing stays cut."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from rankwise.evaluate.truncation import Truncated, ranks_below, truncate
from rankwise.model.adapterproducts import live_products
from rankwise.model.attach import attach, untouched
from rankwise.model.likelihood import final_logits, row_losses
from rankwise.model.load import load_base
from rankwise.text.masks import Encoded
from tests.tiny import tiny_config, tiny_llama

PROMPTS = [[1, 5, 9, 40], [7, 8, 30]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), dtype="fp32")


def rows(count: int) -> list[Encoded]:
    draw = torch.Generator().manual_seed(3)
    drawn = torch.randint(3, 300, (count, 12), generator=draw).tolist()
    return [Encoded(tuple(ids), tuple(ids), line) for line, ids in enumerate(drawn, 1)]


def learned(folder: Path, r: int = 8, **changes: Any) -> Any:
    """An adapter that was fitted to these rows for a few steps, so that it has a gain over its base."""
    model = attach(load_base(folder, dtype="fp32"), tiny_config("lora", r=r, lora_alpha=16.0, **changes))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    for _ in range(12):
        ids = torch.tensor([row.ids for row in rows(10)])
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return learned(folder)


def base_of(model: Any) -> Any:
    def as_base() -> AbstractContextManager[Any]:
        return untouched(model)

    return as_base


def test_ranks_are_powers_of_two_below_the_whole() -> None:
    assert ranks_below(1) == [] and ranks_below(2) == [1] and ranks_below(16) == [1, 2, 4, 8]
    assert ranks_below(20) == [1, 2, 4, 8, 16]


def test_a_cut_model_adds_the_dense_truncation(model: Any) -> None:
    before = final_logits(model, PROMPTS)
    products = list(live_products(model))
    whole = {p.module: p.scale * p.b.double() @ p.a.double() for p in products}
    with Truncated(model, products) as held:
        held.cut(2)
        for product in live_products(model):
            u, s, vh = torch.linalg.svd(whole[product.module], full_matrices=False)
            dense = u[:, :2] * s[:2] @ vh[:2]
            assert torch.allclose(
                product.scale * product.b.double() @ product.a.double(), dense, atol=1e-4 * float(s[0])
            )
        assert not torch.allclose(final_logits(model, PROMPTS), before, atol=1e-2)
    assert torch.equal(final_logits(model, PROMPTS), before)


def test_losses_and_shares_are_those_of_the_cut_models(model: Any) -> None:
    asked = rows(10)
    found = truncate(model, base_of(model), asked, None, lambda *_: None, also=(3, 8, 50))
    assert found is not None and [r.rank for r in found.ranks] == [1, 2, 3, 4] and found.full_rank == 8

    def mean(subject: Any) -> float:
        losses = row_losses(subject, asked)
        return sum(loss for loss, _ in losses) / sum(count for _, count in losses)

    assert found.full_loss == pytest.approx(mean(model))
    with untouched(model) as base:
        assert found.base_loss == pytest.approx(mean(base))
    assert found.gain == pytest.approx(found.base_loss - found.full_loss) and found.gain_interval[0] > 0
    for cut in found.ranks:
        with Truncated(model, list(live_products(model))) as held:
            held.cut(cut.rank)
            loss = mean(model)
        assert cut.loss == pytest.approx(loss, abs=1e-5) and cut.difference == pytest.approx(
            loss - found.full_loss, abs=1e-5
        )
        assert cut.kept == pytest.approx((found.base_loss - loss) / found.gain, abs=1e-4)
        assert cut.kept_interval is not None and cut.kept_interval[0] <= cut.kept <= cut.kept_interval[1]
        assert cut.interval[0] <= cut.difference <= cut.interval[1]
    kept = [cut.kept for cut in found.ranks if cut.kept is not None]
    assert kept[-1] > kept[0]


def test_where_nothing_was_gained_no_share_is_kept(folder: Path) -> None:
    untrained = attach(load_base(folder, dtype="fp32"), tiny_config("lora")).eval()
    found = truncate(untrained, base_of(untrained), rows(8), None, lambda *_: None)
    assert found is not None and found.gain == pytest.approx(0, abs=1e-6)
    assert all(cut.kept is None and cut.kept_interval is None for cut in found.ranks)


def test_a_model_without_products_has_no_ranks(folder: Path) -> None:
    model = attach(load_base(folder, dtype="fp32"), tiny_config("ia3"))
    assert truncate(model, base_of(model), rows(8), None, lambda *_: None) is None
