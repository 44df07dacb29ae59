"""The RMSNorm and RoPE kernels that come with a fast cross-entropy (Unsloth, Liger, fms-acceleration's foak).

RMSNorm saves its 16-bit input, the weight and one fp32 number a row, where transformers' code saves an fp32 copy; its
backward writes over the incoming gradient. RoPE rotates queries and keys in place.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rankwise.trace.meter import launched


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight, torch.empty(hidden.shape[:-1], device=hidden.device))
        out = torch.empty_like(hidden)
        launched(hidden, weight, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        hidden, weight, _ = ctx.saved_tensors
        launched(hidden, weight, grad, grad)
        return grad, torch.empty_like(weight) if ctx.needs_input_grad[1] else None


class _InPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        launched(tensor, tensor)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        launched(grad, grad)
        return grad


def _rms_norm(module: nn.Module, hidden: Tensor) -> Tensor:
    normed: Tensor = _RmsNorm.apply(hidden, module.weight)
    return normed


def _rotate(q: Tensor, k: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    return _InPlace.apply(q), _InPlace.apply(k)


@contextmanager
def fast_kernels(model: nn.Module) -> Iterator[None]:
    """Inside, the model's RMSNorm and RoPE are the kernels'. A model without them runs as it is."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and hasattr(module, "weight"):
            module.forward = partial(_rms_norm, module)
    inner: Any = model
    if hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    code: Any = sys.modules[type(inner).__module__]
    rotary: Callable[..., Any] | None = getattr(code, "apply_rotary_pos_emb", None)
    if rotary is None:
        yield
        return
    code.apply_rotary_pos_emb = _rotate
    try:
        yield
    finally:
        code.apply_rotary_pos_emb = rotary
