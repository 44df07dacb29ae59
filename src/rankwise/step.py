"""One training step: forward, loss on the supervised positions only, backward, optimizer. Training runs it on data,
and `trace` on tensors without data, so that the estimate is of the code that trains.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

IGNORE = -100
CHUNK_BYTES = 8 << 20  # fp32 logits that the loss holds at one time; they then stay in a processor's cache


@dataclass(frozen=True)
class Batch:
    """Rows that go through the model together.

    Attributes:
        input_ids: (rows, length) token ids, right-padded. Packed: documents end to end in each row.
        attention_mask: (rows, length); None when nothing is padded, or when rows are packed.
        keep: (kept,) positions whose logits predict a supervised token of any row, counted from the end of the row
            (-1 is the last), because a prompt method puts positions of its own before it.
        targets: (rows, kept) next token at those positions, IGNORE where it is not supervised.
        tokens: tokens without padding.
        supervised: targets that count.
        position_ids: (rows, length), only when rows are packed: they begin at 0 with each document, by which
            transformers finds the documents and keeps their attention apart.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    keep: Tensor
    targets: Tensor
    tokens: int
    supervised: int
    position_ids: Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        mask, positions = self.attention_mask, self.position_ids
        return Batch(
            self.input_ids.to(device),
            None if mask is None else mask.to(device),
            self.keep.to(device),
            self.targets.to(device),
            self.tokens,
            self.supervised,
            None if positions is None else positions.to(device),
        )

    @property
    def padding(self) -> int:
        """Tokens that are computed for nothing."""
        return self.input_ids.numel() - self.tokens


def collate(ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], pad_token_id: int) -> Batch:
    """Rows of token ids and labels (IGNORE where masked, not yet shifted) -> Batch."""
    longest = max(len(row) for row in ids)
    input_ids = torch.full((len(ids), longest), pad_token_id)
    shifted = torch.full((len(ids), longest), IGNORE)  # position t holds the label of token t + 1
    for i, (row, row_labels) in enumerate(zip(ids, labels, strict=True)):
        input_ids[i, : len(row)] = torch.tensor(row)
        shifted[i, : len(row) - 1] = torch.tensor(row_labels[1:])
    keep = (shifted != IGNORE).any(dim=0).nonzero().squeeze(1)
    targets = shifted[:, keep]
    keep = keep - longest
    tokens = sum(len(row) for row in ids)
    mask = None
    if tokens != input_ids.numel():
        lengths = torch.tensor([len(row) for row in ids])
        mask = (torch.arange(longest) < lengths[:, None]).long()
    return Batch(input_ids, mask, keep, targets, tokens, int((targets != IGNORE).sum()))


def summed_loss(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Sum of the cross-entropy over a batch's supervised positions, in nats, softmax in fp32.

    Logits are computed only where a label is: the head is 21 % of the FLOPs of a 135M model, and its logits are most
    of the activation memory of a small model with a large vocabulary.
    """
    packed = {} if batch.position_ids is None else {"position_ids": batch.position_ids}
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        use_cache=False,
        logits_to_keep=batch.keep,
        **packed,
    ).logits
    loss: Tensor = SummedCrossEntropy.apply(logits.flatten(0, 1), batch.targets.flatten())  # type: ignore[no-untyped-call]
    return loss


class SummedCrossEntropy(torch.autograd.Function):
    """`cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="sum")`, a few rows at a time.

    torch's own makes fp32 copies of all logits, of their log-probabilities and of both gradients, and walks through
    each: 98 ms against 29 ms for 400 rows of 49,152 logits on two cores. Here the logits are kept in their own
    precision, with a log-sum-exp a row, and the gradient is made from them; softmax and sums are fp32 as there.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        """Of (rows, vocabulary) logits and (rows,) targets: the sum, fp32."""
        wanted = targets.clamp_min(0)[:, None]
        found, normal = [], []
        for part, column in zip(*(t.split(_rows_at_once(logits)) for t in (logits, wanted)), strict=True):
            wide = part.float()
            normal.append(wide.logsumexp(dim=1))
            found.append(wide.gather(1, column).squeeze(1))
        lse = torch.cat(normal)
        ctx.save_for_backward(logits, targets, lse)
        return ((lse - torch.cat(found)) * (targets != IGNORE)).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Softmax minus one at the target, in the precision of the logits."""
        logits, targets, lse = ctx.saved_tensors
        wanted, weight = targets.clamp_min(0)[:, None], ((targets != IGNORE) * grads[0])[:, None]
        gradient = torch.empty_like(logits)
        cut = [t.split(_rows_at_once(logits)) for t in (logits, wanted, weight, lse[:, None], gradient)]
        for part, column, factor, normal, out in zip(*cut, strict=True):
            wide = part.float().sub_(normal).exp_()
            wide.scatter_add_(1, column, wide.new_full((1, 1), -1.0).expand(column.shape))
            out.copy_(wide.mul_(factor))
        return gradient, None


def _rows_at_once(logits: Tensor) -> int:
    return max(1, CHUNK_BYTES // (4 * logits.shape[1]))


def both_finite(loss: Tensor, norm: Tensor) -> bool:
    """A loss or a gradient norm that is not finite leaves the weights alone."""
    return bool(torch.isfinite(loss) & torch.isfinite(norm))


class Steps(Protocol):
    """What a training step asks of an optimizer."""

    def step(self) -> object:
        """Update the weights by their gradients."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients."""


def accumulate(
    model: torch.nn.Module,
    batches: Sequence[Batch],
    *,
    backward: Callable[[Tensor], None],
    autocast: Callable[[], AbstractContextManager[object]],
    loss_of: Callable[[torch.nn.Module, Batch], Tensor] = summed_loss,
    supervised: int | None = None,
) -> Tensor:
    """Add the gradient of the mean loss over all supervised tokens of `batches`; returns that loss.

    Args:
        supervised: what the sum of the losses is divided by; None: the tokens of `batches` that count.
    """
    supervised = sum(batch.supervised for batch in batches) if supervised is None else supervised
    total = torch.zeros((), device=batches[0].input_ids.device)
    for batch in batches:
        with autocast():
            loss = loss_of(model, batch) / supervised
        backward(loss)
        total += loss.detach()
        del loss
    return total


def training_step(
    model: torch.nn.Module,
    batches: Sequence[Batch],
    optimizer: Steps,
    *,
    backward: Callable[[Tensor], None],
    clip: Callable[[], Tensor],
    autocast: Callable[[], AbstractContextManager[object]],
    loss_of: Callable[[torch.nn.Module, Batch], Tensor] = summed_loss,
    usable: Callable[[Tensor, Tensor], bool] = both_finite,
    supervised: int | None = None,
    over_ranks: Callable[[Tensor], Tensor] = lambda total: total,
) -> tuple[Tensor, Tensor]:
    """Accumulate the gradient over `batches`, clip it, and step the optimizer if loss and gradient norm are `usable`.

    The loss is the sum over all supervised tokens of the step divided by their number, so that 8 batches of 1 row
    equal 1 batch of 8 (the mean of means is wrong when lengths differ, as Unsloth and Hugging Face reported in
    October 2024).

    Args:
        supervised: tokens of the step that count, those of all processes; None: those of `batches`.
        over_ranks: adds up a loss over the processes.

    Returns:
        (loss in nats per supervised token, gradient norm before clipping), as tensors of one number.
    """
    own = accumulate(model, batches, backward=backward, autocast=autocast, loss_of=loss_of, supervised=supervised)
    total = over_ranks(own)
    norm = clip()
    if usable(total, norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, norm
