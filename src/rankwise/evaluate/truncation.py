"""What an adapter's rank is worth after training: held-out loss with its weakest directions cut away."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from rankwise.evaluate.paired import compare_losses, resampled
from rankwise.model.adapterproducts import live_products
from rankwise.model.likelihood import row_losses
from rankwise.model.products import Product, truncated
from rankwise.records import TruncatedRank, Truncation
from rankwise.text.masks import Encoded

Progress = Callable[[str, int, int], None]
Losses = list[tuple[float, int]]


def truncate(
    tuned: Any,
    as_base: Callable[[], AbstractContextManager[Any]],
    rows: Sequence[Encoded],
    autocast: Any,
    progress: Progress,
    also: Sequence[int] = (),
) -> Truncation | None:
    """Loss on `rows` of the base, of the adapter, and of the adapter cut to ranks 1, 2, 4, ... by truncated SVD of each
    product. The model is as it was afterwards. None for a model without products.

    Intervals are paired over rows. The share of the gain that is kept is the ratio of two sums over the same rows; it
    is given where the gain itself is sure, since a ratio to nearly nothing says nothing.

    Args:
        also: further ranks.
    """
    began = time.monotonic()
    products = list(live_products(tuned))
    if not products:
        return None
    full_rank = max(product.rank for product in products)
    ranks = sorted({*ranks_below(full_rank), *(rank for rank in also if rank < full_rank)})
    with as_base() as base:
        untouched = _losses(base, rows, autocast)
    progress("held-out loss by rank", 1, len(ranks) + 2)
    whole = _losses(tuned, rows, autocast)
    progress("held-out loss by rank", 2, len(ranks) + 2)
    cut = {}
    with Truncated(tuned, products) as model:
        for number, rank in enumerate(ranks, 3):
            model.cut(rank)
            cut[rank] = _losses(tuned, rows, autocast)
            progress("held-out loss by rank", number, len(ranks) + 2)
    gained = compare_losses("heldout_loss", whole, untouched, "")
    sure = gained.answer == "worse"  # the base's loss is higher, beyond chance
    return Truncation(
        rows=len(rows),
        full_rank=full_rank,
        base_loss=gained.tuned,
        full_loss=gained.base,
        gain=gained.difference,
        gain_interval=gained.difference_interval,
        ranks=tuple(_rank(rank, losses, whole, untouched, sure) for rank, losses in cut.items()),
        source=f"cross-entropy of the answers of {len(rows)} held-out rows; bootstrap over rows, paired, 95 %",
        seconds=time.monotonic() - began,
    )


def ranks_below(rank: int) -> list[int]:
    """1, 2, 4, ... below the whole rank."""
    return [2**power for power in range(rank.bit_length()) if 2**power < rank]


class Truncated:
    """A model whose products are cut in place, and put back at the end."""

    def __init__(self, model: Any, products: Sequence[Product]):
        self.products = products
        self.whole = [(p.a.clone(), p.b.clone()) for p in products]

    def __enter__(self) -> "Truncated":
        return self

    @torch.no_grad()
    def cut(self, rank: int) -> None:
        """The strongest `rank` directions of each product; what is left of its matrices is zero."""
        for product, (a, b) in zip(self.products, self.whole, strict=True):
            near = truncated(Product(product.module, a, b, product.scale, product.transposed), rank)
            kept = near.rank
            product.a.zero_()[:kept] = near.a
            product.b.zero_()[:, :kept] = near.b / product.scale

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            for product, (a, b) in zip(self.products, self.whole, strict=True):
                product.a.copy_(a)
                product.b.copy_(b)


def _losses(model: Any, rows: Sequence[Encoded], autocast: Any) -> Losses:
    return row_losses(model, rows, autocast)


def _rank(rank: int, cut: Losses, whole: Losses, untouched: Losses, sure: bool) -> TruncatedRank:
    compared = compare_losses("heldout_loss", whole, cut, "")
    kept = interval = None
    if sure:
        below, gain = (
            np.array([b - t for (b, _), (t, _) in zip(untouched, side, strict=True)]) for side in (cut, whole)
        )
        kept, interval = float(below.sum() / gain.sum()), resampled(below, gain)
    return TruncatedRank(
        rank=rank,
        loss=compared.tuned,
        difference=compared.difference,
        interval=compared.difference_interval,
        kept=kept,
        kept_interval=interval,
    )
