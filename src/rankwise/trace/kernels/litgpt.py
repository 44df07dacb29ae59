"""What litgpt's own models of 2023 keep that transformers' models do not (read in its repository, commit 8641822).

Query, key and value are views of one tensor, so the value that attention saves keeps all three. The product of LoRA's
two matrices is kept by the zero-padding that puts it into the fused tensor. bitsandbytes 0.41 saved the input of every
4-bit layer for its backward.
"""

from typing import Any

import torch
from torch import Tensor, nn

from rankwise.trace.kernels.quantised import Linear4bit

PROJECTIONS = ("q_proj", "k_proj", "v_proj")


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.save_for_backward(tensor)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class _Slice(torch.autograd.Function):
    """A projection's output, placed in the fused tensor."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, fused: Tensor, start: int) -> Tensor:
        return fused[..., start : start + output.shape[-1]]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None


class _FusedProjections:
    """Gives the three projections of one attention module a tensor in common, new in every forward pass."""

    def __init__(self, attention: nn.Module) -> None:
        widths = [getattr(attention, name).out_features for name in PROJECTIONS]
        self.width = sum(widths)
        self.fused: Tensor | None = None
        for name, start in zip(PROJECTIONS, (0, widths[0], widths[0] + widths[1]), strict=True):
            getattr(attention, name).register_forward_hook(self._placer(start))

    def _placer(self, start: int) -> Any:
        def place(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            if start == 0:
                self.fused = output.new_empty(*output.shape[:-1], self.width)
            placed: Tensor = _Slice.apply(output, self.fused, start)
            if start + output.shape[-1] == self.width:
                self.fused = None
            return placed

        return place


def as_litgpt(model: nn.Module) -> None:
    """Change a model that is ready to train, in place."""
    for module in list(model.modules()):
        if isinstance(module, Linear4bit):
            module.keeps_input = True
        if hasattr(module, "lora_B"):
            projections: Any = module.lora_B
            for projection in projections.values():
                projection.register_forward_hook(lambda module, args, output: _Kept.apply(output))
        if all(hasattr(getattr(module, name, None), "out_features") for name in PROJECTIONS):
            _FusedProjections(module)
