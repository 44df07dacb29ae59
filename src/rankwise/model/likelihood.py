"""How likely a model finds given tokens: cross-entropy of labelled rows, and logits at the end of prompts."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, NamedTuple, Protocol

import torch
from torch import nn
from torch.nn.functional import cross_entropy

IGNORE = -100  # a label that is not learned: torch's own convention, and that of rankwise.text.masks
Autocast = Literal["bf16"] | None
CHUNK = 1024  # positions whose fp32 logits exist at one time


class Labelled(Protocol):
    """Token ids and labels of one length; `rankwise.text.masks.Encoded` is one."""

    @property
    def ids(self) -> Sequence[int]: ...
    @property
    def labels(self) -> Sequence[int]: ...


class Read(NamedTuple):
    """How a model reads one row: cross-entropy in nats, and for each labelled token whether it is the likeliest one."""

    loss: float
    right: tuple[bool, ...]


def row_losses(model: nn.Module, encoded: Sequence[Labelled], autocast: Autocast = None) -> list[tuple[float, int]]:
    """(sum of cross-entropy in nats, labelled tokens) of each row, in order. A row without labels gives (0.0, 0).

    The label of a row's first token counts for nothing, because nothing comes before it to predict it from.
    Rows run one by one without padding, so that a row's loss does not depend on its neighbours; logits are made only
    where there are labels, and the softmax is fp32. Positions are counted from the end: a prompt method has some of its
    own before the row.
    """
    with evaluating(model):
        return [_row_loss(model, row, autocast) for row in encoded]


def row_reads(model: nn.Module, encoded: Sequence[Labelled], autocast: Autocast = None) -> list[Read]:
    """As `row_losses`, and in the same pass which labelled tokens a greedy model would have written."""
    with evaluating(model):
        return [_row_read(model, row, autocast) for row in encoded]


def _row_loss(model: nn.Module, row: Labelled, autocast: Autocast) -> tuple[float, int]:
    parts = [(_nats(x, y), y.numel()) for x, y in _predicted(model, row, autocast)]
    return sum(loss for loss, _ in parts), sum(count for _, count in parts)


def _row_read(model: nn.Module, row: Labelled, autocast: Autocast) -> Read:
    parts = [(_nats(x, y), (x.argmax(-1) == y).tolist()) for x, y in _predicted(model, row, autocast)]
    return Read(sum(loss for loss, _ in parts), tuple(hit for _, right in parts for hit in right))


def _nats(logits: torch.Tensor, wanted: torch.Tensor) -> float:
    return cross_entropy(logits, wanted, reduction="sum").item()


def _predicted(model: nn.Module, row: Labelled, autocast: Autocast) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """fp32 logits (positions, vocabulary) and the labels of those positions, CHUNK of them at a time."""
    device = device_of(model)
    labels = torch.tensor(row.labels[1:], device=device)
    at = (labels != IGNORE).nonzero().squeeze(1)  # position i predicts token i + 1
    if at.numel() == 0:
        return
    ids = torch.tensor([row.ids], device=device)
    with arithmetic(device, autocast):
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=at - len(row.ids)).logits[0]
    for x, y in zip(torch.split(logits, CHUNK), torch.split(labels[at], CHUNK), strict=True):
        yield x.float(), y


def grouped_losses(
    model: nn.Module, groups: Sequence[Sequence[Labelled]], autocast: Autocast = None
) -> list[list[tuple[float, int]]]:
    """As `row_losses`, for rows that begin alike, such as a question with each of its choices: those of a group run
    together, padded on the right, which no token of a causal model sees. So a group's numbers do not depend on others.
    """
    with evaluating(model):
        return [_group_losses(model, group, autocast) for group in groups]


def _group_losses(model: nn.Module, rows: Sequence[Labelled], autocast: Autocast) -> list[tuple[float, int]]:
    device, width = device_of(model), max(len(row.ids) for row in rows)
    first = min(next((i for i, label in enumerate(row.labels) if i and label != IGNORE), width) for row in rows)
    ids = torch.tensor([[*row.ids, *[0] * (width - len(row.ids))] for row in rows], device=device)
    labels = torch.tensor([[*row.labels, *[IGNORE] * (width - len(row.ids))] for row in rows], device=device)
    at = torch.arange(first - 1, width - 1, device=device)  # position i predicts token i + 1
    with arithmetic(device, autocast):
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=at - width).logits
    found = []
    for out, wanted in zip(logits, labels[:, first:], strict=True):
        total = cross_entropy(out.float(), wanted, ignore_index=IGNORE, reduction="sum")
        found.append((total.item(), int((wanted != IGNORE).sum())))
    return found


def final_logits(model: nn.Module, prompts: Sequence[Sequence[int]], autocast: Autocast = None) -> torch.Tensor:
    """Logits after the last token of each prompt: (prompts, vocabulary), fp32, on the CPU."""
    device = device_of(model)
    rows = []
    with evaluating(model):
        for prompt in prompts:
            ids = torch.tensor([list(prompt)], device=device)
            with arithmetic(device, autocast):
                logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits
            rows.append(logits[0, -1].float().cpu())
    return torch.stack(rows)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout and no gradients inside; the model's mode comes back after."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():  # not inference_mode: weights that FSDP gathers inside are trained with afterwards
            yield
    finally:
        model.train(training)


def arithmetic(device: torch.device, autocast: Autocast) -> AbstractContextManager[object]:
    """Autocast to bf16, or the weights' own precision."""
    return nullcontext() if autocast is None else torch.autocast(device.type, dtype=torch.bfloat16)


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
