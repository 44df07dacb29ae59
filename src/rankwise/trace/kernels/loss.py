"""The loss paths of several eras: which copies of the logits are alive at one time.

Each takes the model, a batch and a list in which it leaves what a training loop still holds during backward.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rankwise.step import IGNORE, Batch, summed_loss
from rankwise.trace.meter import launched, named

CHUNK = 128  # tokens: litgpt's and torchtune's order of magnitude
Held = list[object]


def full_logits(model: nn.Module, batch: Batch, held: Held) -> Tensor:
    """transformers from 4.49 on: the labels are shifted, not the logits; fp32 logits are a temporary of the loss.

    A loop that still has `outputs` when it calls backward holds the logits: 14 bytes a logit then, and 12 in the
    Trainer, which returns the loss alone.
    """
    outputs = model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.input_ids, use_cache=False
    )
    held.append(outputs.logits)
    loss: Tensor = outputs.loss
    return loss


def upcast_logits(model: nn.Module, batch: Batch, held: Held) -> Tensor:
    """transformers 4.46 to 4.48, ForCausalLMLoss: the caller's 16-bit logits, `logits.float()`, a contiguous copy
    without the last position and its log-probabilities: 14 bytes a logit.
    """
    logits, hidden, outputs = _forward_keeping_hidden(model, batch)
    loss = _shifted_cross_entropy(logits.float(), batch)
    del hidden, outputs
    return loss


def upcast_in_class(model: nn.Module, batch: Batch, held: Held) -> Tensor:
    """transformers up to 4.45 (Mistral, Granite to 4.47): `logits = logits.float()` frees those of 16 bit; 12 bytes."""
    logits, hidden, outputs = _forward_keeping_hidden(model, batch)
    del outputs
    logits = logits.float()
    loss = _shifted_cross_entropy(logits, batch)
    del hidden
    return loss


def shifted_logits(model: nn.Module, batch: Batch, held: Held) -> Tensor:
    """GPT-BigCode and its time: the copy without the upcast."""
    logits, hidden, outputs = _forward_keeping_hidden(model, batch)
    loss = _shifted_cross_entropy(logits, batch)
    del hidden, outputs
    return loss


def _forward_keeping_hidden(model: nn.Module, batch: Batch) -> tuple[Tensor, list[Tensor], Any]:
    """Those losses were computed inside the model's forward, where the last hidden state was still a variable."""
    kept: list[Tensor] = []
    head: nn.Module = _inner(model).get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    try:
        outputs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    finally:
        hook.remove()
    return outputs.logits, kept, outputs


def _inner(model: nn.Module) -> Any:
    outer: Any = model
    return outer.get_base_model() if hasattr(outer, "get_base_model") else outer


def _labels(batch: Batch, length: int) -> Tensor:
    """(rows, length) tokens; a prompt method's virtual tokens come first and have no label."""
    ids = batch.input_ids
    if length > ids.shape[1]:
        ids = torch.cat((ids.new_full((ids.shape[0], length - ids.shape[1]), IGNORE), ids), dim=1)
    return ids


def _shifted_cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    shifted = logits[..., :-1, :].contiguous()
    return cross_entropy(shifted.view(-1, shifted.shape[-1]), _labels(batch, logits.shape[1])[..., 1:].reshape(-1))


class _InPlaceCrossEntropy(torch.autograd.Function):
    """Unsloth's and Liger's kernel: saves the logits and a log-sum-exp a row; the gradient overwrites the logits."""

    @staticmethod
    @named("in-place cross-entropy")
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        lse = torch.empty(logits.shape[0], device=logits.device)
        ctx.save_for_backward(logits, lse, targets)
        launched(logits, lse)
        return torch.empty(logits.shape[0], device=logits.device)

    @staticmethod
    @named("in-place cross-entropy backward")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        launched(ctx.saved_tensors[0], ctx.saved_tensors[0])
        return ctx.saved_tensors[0], None


def fast_ce(model: nn.Module, batch: Batch, held: Held) -> Tensor:
    """A cross-entropy kernel patched into `upcast_in_class`: logits are materialised, their softmax is not: 8 bytes."""
    logits, hidden, outputs = _forward_keeping_hidden(model, batch)
    del outputs
    logits = logits.float()
    loss = _in_place_cross_entropy(logits, batch)
    del hidden
    return loss


def fast_ce_held(model: nn.Module, batch: Batch, held: Held) -> Tensor:
    """The same kernel patched into `upcast_logits`: 10 bytes."""
    logits, hidden, outputs = _forward_keeping_hidden(model, batch)
    loss = _in_place_cross_entropy(logits.float(), batch)
    del hidden, outputs
    return loss


def _in_place_cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    shifted = logits[..., :-1, :].contiguous()
    labels = _labels(batch, logits.shape[1])[..., 1:]
    losses: Tensor = _InPlaceCrossEntropy.apply(shifted.view(-1, shifted.shape[-1]), labels.reshape(-1))
    return losses.sum() / losses.shape[0]


def _hidden(model: nn.Module, batch: Batch) -> tuple[Tensor, nn.Module]:
    inner = _inner(model)
    head = inner.get_output_embeddings()
    inner.set_output_embeddings(nn.Identity())
    try:
        outputs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    finally:
        inner.set_output_embeddings(head)
    return outputs.logits, head


class _FusedLinear(torch.autograd.Function):
    """Liger's fused linear cross-entropy: the gradient of the hidden states is made in the forward pass, chunk by
    chunk, and only a chunk's logits exist at a time.
    """

    @staticmethod
    @named("fused linear cross-entropy")
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        rows, size = hidden.shape
        vocab = weight.shape[0]
        chunks = 1 << max(0, (-(-vocab // size) - 1).bit_length())
        chunk = min(rows, 1 << max(0, (-(-rows // chunks) - 1).bit_length()))
        grad_hidden = torch.zeros_like(hidden)
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        losses = torch.zeros(rows, device=hidden.device)
        for start in range(0, rows, chunk):
            part = hidden[start : start + chunk]
            logits = part @ weight.t()
            launched(logits, logits)  # softmax and gradient in place
            grad_hidden[start : start + chunk] = logits @ weight
            if grad_weight is not None:
                grad_weight += logits.t() @ part
            del logits
        ctx.save_for_backward(grad_hidden, *([grad_weight] if grad_weight is not None else []))
        return losses.sum()

    @staticmethod
    @named("fused linear cross-entropy backward")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        grads = ctx.saved_tensors
        return grads[0], grads[1] if len(grads) > 1 else None, None


def fused_linear(model: nn.Module, batch: Batch, held: Held) -> Tensor:
    """Liger's fused linear cross-entropy in the place of head and loss: no full logits."""
    hidden, head = _hidden(model, batch)
    flat = hidden[..., :-1, :].reshape(-1, hidden.shape[-1])
    targets = _labels(batch, hidden.shape[1])[..., 1:].reshape(-1)
    loss: Tensor = _FusedLinear.apply(flat, head.weight, targets)
    return loss / flat.shape[0]


def chunked(model: nn.Module, batch: Batch, held: Held) -> Tensor:
    """litgpt: the head is applied to 128 tokens at a time, and cross-entropy in 16 bit to each piece; the pieces live
    in a list that the loop holds during backward.
    """
    hidden, head = _hidden(model, batch)
    pieces = [head(piece) for piece in hidden.split(CHUNK, dim=1)]
    held.append(pieces)
    labels = _labels(batch, hidden.shape[1]).split(CHUNK, dim=1)
    losses = [
        cross_entropy(logits.reshape(-1, logits.shape[-1]), part.reshape(-1), reduction="none")
        for logits, part in zip(pieces, labels, strict=True)
    ]
    return torch.cat(losses).mean()


def labelled(model: nn.Module, batch: Batch, held: Held) -> Tensor:
    """Rankwise's own: logits at labelled positions only."""
    return summed_loss(model, batch)


LOSSES: dict[str, Callable[[nn.Module, Batch, Held], Tensor]] = {
    "full-logits": full_logits,
    "upcast-logits": upcast_logits,
    "shifted-logits": shifted_logits,
    "fast-ce": fast_ce_held,
    "chunked": chunked,
    "fused-linear": fused_linear,
    "labelled": labelled,
}
IN_CLASS = {"upcast-logits": upcast_in_class, "fast-ce": fast_ce}
FAST_KERNELS = {"fast-ce", "fused-linear"}  # these come as sets: cross-entropy, RMSNorm, RoPE
