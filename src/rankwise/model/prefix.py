"""Prompts that begin alike, such as those after the same examples: what they share is read once."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from rankwise.model.likelihood import IGNORE, Autocast, Labelled, arithmetic, device_of, evaluating

WORTH = 32  # tokens; a shorter beginning is cheaper to read again than to copy
BATCH = 16  # rows that are scored together at most


def token_losses(
    model: nn.Module,
    rows: Sequence[Labelled],
    autocast: Autocast = None,
    on_batch: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Cross-entropy in nats of each labelled token of each row, in order.

    The tokens that all rows begin with are read once, the rest is padded on the right in batches of rows of similar
    length. In fp32 the same numbers as `likelihood.row_losses` (but not summed); in bf16 padding changes the rounding.

    Args:
        on_batch: called after each batch with the number of rows that it had.
    """
    losses: list[list[float]] = [[] for _ in rows]
    shared = read_once([row.ids[: first_label(row)] for row in rows])
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids), reverse=True)
    with evaluating(model):
        cache = read_prefix(model, rows[0].ids[:shared], autocast) if shared else None
        start = shared if cache is not None else 0
        for at in range(0, len(order), BATCH):
            batch = order[at : at + BATCH]
            for number, found in zip(
                batch, _batch(model, [rows[i] for i in batch], start, cache, autocast), strict=True
            ):
                losses[number] = found
            if on_batch:
                on_batch(len(batch))
    return losses


def shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """Number of token ids that all prompts begin with."""
    known = [tuple(p) for p in prompts]
    first, last = min(known), max(known)  # the two that differ soonest
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def read_once(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with and that are worth reading once; at least one of each is left."""
    shared = min(shared_length(prompts), min(map(len, prompts)) - 1) if len(prompts) > 1 else 0
    return shared if shared >= WORTH else 0


def read_prefix(model: Any, ids: Sequence[int], autocast: Autocast = None) -> DynamicCache | None:
    """Keys and values of a beginning; None for a model whose memory of it cannot be repeated for several rows, or
    which would put its learned prompt before the rest of the row again.
    """
    if learned_prompt(model) is not None:
        return None
    device = device_of(model)
    with arithmetic(device, autocast), torch.inference_mode():
        out = model(input_ids=torch.tensor([list(ids)], device=device), use_cache=True, logits_to_keep=1)
    cache = getattr(out, "past_key_values", None)
    return cache if type(cache) is DynamicCache else None


def learned_prompt(model: Any) -> Any:
    """PEFT's configuration of a prompt method; None for any other model."""
    config = getattr(model, "active_peft_config", None)
    return config if config is not None and config.is_prompt_learning else None


def repeated(cache: DynamicCache, rows: int) -> DynamicCache:
    """A copy for a batch of `rows`; the one given stays as it is, because a model adds to the one that it uses."""
    mine = copy.deepcopy(cache)
    mine.batch_repeat_interleave(rows)
    return mine


def first_label(row: Labelled) -> int:
    """Tokens before the first label that something predicts."""
    return next((i for i, label in enumerate(row.labels) if i and label != IGNORE), len(row.labels))


def _batch(
    model: Any, rows: Sequence[Labelled], start: int, cache: DynamicCache | None, autocast: Autocast
) -> list[list[float]]:
    device, width = device_of(model), max(len(row.ids) for row in rows) - start
    ids = torch.tensor([list(row.ids[start:]) + [0] * (width + start - len(row.ids)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row.ids) + [0] * (width + start - len(row.ids)) for row in rows], device=device)
    first = min(first_label(row) for row in rows) - 1  # the position that predicts the first label of all
    keep = torch.arange(max(first, 0) - start, width, device=device) - width  # from the end, after a learned prompt
    memory = {"use_cache": False} if cache is None else {"past_key_values": repeated(cache, len(rows))}
    with arithmetic(device, autocast):
        logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=keep, **memory).logits
    found = []
    for row, out in zip(rows, logits, strict=True):
        wanted = [(i, label) for i, label in enumerate(row.labels) if i and label != IGNORE]
        at = torch.tensor([i - 1 - max(first, 0) for i, _ in wanted], device=device, dtype=torch.long)
        labels = torch.tensor([label for _, label in wanted], device=device, dtype=torch.long)
        found.append(cross_entropy(out[at].float(), labels, reduction="none").tolist() if wanted else [])
    return found
