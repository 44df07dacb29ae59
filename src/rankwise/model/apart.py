"""Are documents that share a row apart? Asked of the real model before anything trains on packed rows."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from rankwise.errors import TrainingError
from rankwise.model.likelihood import Autocast, arithmetic, device_of, evaluating

SHOWN = 48  # tokens of each document: enough for every layer to look back, and little to compute
# Mean difference of two sets of logits, as a share of their spread, that rounding may cause: within one shape (what
# experts are given differs), and between shapes, whose sums have another order. A document that sees another moves by
# 0.1 to 1.
SAME_SHAPE = {"fp32": 1e-4, "16-bit": 1e-2}
OTHER_SHAPE = {"fp32": 1e-3, "16-bit": 5e-2}


def require_apart(
    model: nn.Module,
    documents: tuple[Sequence[int], Sequence[int]],
    autocast: Autocast,
    attention: Callable[[nn.Module], AbstractContextManager[None]],
) -> None:
    """Pack two documents, change each, and take each alone: the other's logits, and its own, must stay.

    Args:
        documents: token ids, two or more each.
        attention: the context in which the model trains.

    Raises:
        TrainingError: one document sees the other, or its positions do not begin anew.
    """
    first, second = (list(ids[:SHOWN]) for ids in documents)
    with attention(model):
        together = _logits(model, [first, second], autocast)
        other_first = _logits(model, [_changed(first), second], autocast)
        other_second = _logits(model, [first, _changed(second)], autocast)
        alone = _logits(model, [second], autocast)
    wide = autocast is None and next(p for p in model.parameters() if p.is_floating_point()).dtype == torch.float32
    digits, cut = "fp32" if wide else "16-bit", len(first)
    for what, a, b, limits in (
        ("the second of two packed documents sees the first", together[cut:], other_first[cut:], SAME_SHAPE),
        ("the first of two packed documents sees the second", together[:cut], other_second[:cut], SAME_SHAPE),
        ("a packed document has other logits than alone", together[cut:], alone, OTHER_SHAPE),
    ):
        limit = limits[digits]
        moved = _moved(a, b)
        if not moved <= limit:
            raise TrainingError(
                f"{what}: its logits differ by {moved:.2g} of their spread",
                expected=f"at most {limit:g}, which is rounding",
                fix="set train.packing to false; this model class does not keep packed documents apart",
            )


def _changed(ids: list[int]) -> list[int]:
    """The same tokens one place on: another text of the same length and vocabulary."""
    return [*ids[1:], ids[0]] if len(set(ids)) > 1 else [i + 1 if i == 0 else i - 1 for i in ids]


def _logits(model: nn.Module, documents: Sequence[Sequence[int]], autocast: Autocast) -> Tensor:
    """(tokens, vocabulary), fp32."""
    device = device_of(model)
    ids = torch.tensor([[t for document in documents for t in document]], device=device)
    positions = torch.cat([torch.arange(len(d), device=device) for d in documents])[None]
    with evaluating(model), arithmetic(device, autocast):
        logits: Tensor = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
    return logits.float()


def _moved(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().mean() / a.std())
