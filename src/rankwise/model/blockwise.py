"""Causal attention on a CPU by matrix products, one document after the other.

torch's CPU kernel of scaled_dot_product_attention reaches a tenth of the matmul rate: 9 heads of 64 over 512 tokens in
bf16 took 4.3 ms forward and 10.2 ms backward on two cores, these products 2.0 and 4.2 ms; two documents of 220 tokens
in one row 1.0 and 2.1 ms, because nothing is computed between them. Scores are rounded to the precision of the
queries before the softmax, as in transformers' eager attention; the softmax itself is fp32.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "blockwise"
BLOCK = 128  # queries at one time: 64 to 256 are equally fast, and their scores stay in the cache
Spans = list[tuple[int, int, int]]  # (row, first token, token after the last)


def training_attention(device: torch.device) -> Callable[[nn.Module], AbstractContextManager[None]]:
    """The context in which a training step runs on a device: on a CPU `blockwise_attention`, else none."""
    return blockwise_attention if device.type == "cpu" else lambda model: nullcontext()


@contextmanager
def blockwise_attention(model: nn.Module) -> Iterator[None]:
    """Inside, a model that would use scaled_dot_product_attention attends by these products in training mode.

    Inside, rows are padded on the right or packed with position ids, as a training step has them: neither needs a mask,
    since no token sees what comes after it. What these products do not cover (dropout, windows shorter than a
    document, a cache) goes to scaled_dot_product_attention with the mask that transformers made.
    """
    configs = _configs(model)
    before = [config._attn_implementation for config in configs]
    for config, name in zip(configs, before, strict=True):
        if name == "sdpa":
            config._attn_implementation = NAME
    try:
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name


def takes_documents(model: nn.Module) -> bool:
    """Would `blockwise_attention` change this model, so that documents in one long row cost no more than alone?"""
    return any(config._attn_implementation == "sdpa" for config in _configs(model))


def _configs(model: nn.Module) -> list[Any]:
    """The configs whose `_attn_implementation` its layers read, each once."""
    found = {id(c): c for m in model.modules() if isinstance(c := getattr(m, "config", None), PreTrainedConfig)}
    return list(found.values())


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As every function of transformers' AttentionInterface: (rows, heads, tokens, width) -> (rows, tokens, heads,
    width).
    """
    positions, window = kwargs.get("position_ids"), kwargs.get("sliding_window")
    spans = None if positions is None else spans_of(positions, query.shape[0])
    whole = spans is not None and (window is None or all(end - start <= window for _, start, end in spans))
    plain = query.shape[2] == key.shape[2] and key.shape[3] == value.shape[3] and query.shape[1] % key.shape[1] == 0
    other = dropout or not getattr(module, "is_causal", True) or kwargs.get("position_bias") is not None
    if not (whole and plain) or other or kwargs.get("softcap") is not None:
        found: Tensor = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )[0]
        return found, None
    if torch.is_autocast_enabled("cpu"):  # as scaled_dot_product_attention has them under autocast
        query, key, value = (t.to(torch.get_autocast_dtype("cpu")) for t in (query, key, value))
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    return _CausalAttention.apply(query, key, value, scale, spans), None  # type: ignore[no-untyped-call]


def spans_of(position_ids: Tensor, rows: int) -> Spans:
    """Documents begin where a position does not follow the one before it. Args: position_ids, (rows or 1, tokens)."""
    length = position_ids.shape[1]
    starts = (torch.diff(position_ids, dim=1) != 1).nonzero().tolist()
    spans: Spans = []
    for row in range(rows):
        own = row if len(position_ids) > 1 else 0
        edges = [0, *(at + 1 for i, at in starts if i == own), length]
        spans += [(row, edges[i], edges[i + 1]) for i in range(len(edges) - 1)]
    return spans


class _CausalAttention(torch.autograd.Function):
    """softmax(scale * q k^T) v below the diagonal; the softmax is computed again in the backward pass (as in Dao et al.
    2022), so that nothing of the size of tokens x tokens is kept. Several query heads may share a key head.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, spans: Spans) -> Tensor:
        rows, heads, tokens, width = q.shape
        groups = k.shape[1]
        out = q.new_empty((rows, tokens, heads, width))
        for row, first, start, end in _blocks(spans):
            queries = _grouped(q, row, start, end, groups)
            seen = _probabilities(queries, k[row, :, first:end], scale, end - start)
            block = torch.bmm(seen.view(groups, -1, end - first), v[row, :, first:end])
            out[row, start:end] = block.view(heads, end - start, width).transpose(0, 1)
        ctx.save_for_backward(q, k, v)
        ctx.scale, ctx.spans = scale, spans
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v = ctx.saved_tensors
        given = grads[0].transpose(1, 2)
        heads, groups, width = q.shape[1], k.shape[1], q.shape[3]
        dq = torch.empty_like(q)
        dk, dv = (torch.zeros(t.shape, dtype=torch.float32, device=t.device) for t in (k, v))
        for row, first, start, end in _blocks(ctx.spans):
            keys, values, count = k[row, :, first:end], v[row, :, first:end], end - start
            queries, gradient = (_grouped(t, row, start, end, groups) for t in (q, given))
            seen = _probabilities(queries, keys, ctx.scale, count)
            of_seen = torch.bmm(gradient, values.transpose(1, 2)).view(heads, count, -1)
            of_scores = torch._softmax_backward_data(of_seen, seen, -1, seen.dtype).view(groups, -1, end - first)
            dq[row, :, start:end] = torch.bmm(of_scores, keys).mul_(ctx.scale).view(heads, count, width)
            dk[row, :, first:end] += torch.bmm(of_scores.transpose(1, 2), queries * ctx.scale)
            dv[row, :, first:end] += torch.bmm(seen.view(groups, -1, end - first).transpose(1, 2), gradient)
        return dq, dk.to(k.dtype), dv.to(v.dtype), None, None


def _blocks(spans: Spans) -> Iterator[tuple[int, int, int, int]]:
    """(row, first token of the document, first and last + 1 of a block of its queries)."""
    for row, first, last in spans:
        for start in range(first, last, BLOCK):
            yield row, first, start, min(start + BLOCK, last)


def _grouped(t: Tensor, row: int, start: int, end: int, groups: int) -> Tensor:
    """Heads that share a key head below each other: (groups, heads / groups * queries, width)."""
    return t[row, :, start:end].reshape(groups, -1, t.shape[3])


def _probabilities(queries: Tensor, keys: Tensor, scale: float, count: int) -> Tensor:
    """(heads, queries, keys)."""
    scores = torch.bmm(queries, keys.transpose(1, 2)).view(-1, count, keys.shape[1]).mul_(scale)
    scores[:, :, -count:].add_(_later(count, scores.dtype))
    return torch.softmax(scores, dim=-1)


@lru_cache(maxsize=2 * BLOCK)
def _later(count: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of a block among itself: minus infinity for keys that come after the query."""
    with torch.inference_mode(False):
        return torch.full((count, count), float("-inf"), dtype=dtype).triu_(1)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
