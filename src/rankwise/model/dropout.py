"""Dropout of 16-bit numbers on a CPU, from sixteen random bits a number.

torch draws each number's Bernoulli variable alone, on one thread: 1.33 ms for 512 x 576 bf16 numbers, which an adapter
on all linear layers of a small model does 210 times a pass, more than its matrix products take. Here one 64-bit draw
serves four numbers and everything else is integer arithmetic over whole vectors: 0.31 ms. Rates are exact to 1/32,768;
the random numbers are those of torch's generator, so that a seed repeats them.
"""

from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn

LEVELS = 1 << 15


class QuickDropout(nn.Dropout):
    """nn.Dropout, with a kernel of its own for 16-bit numbers on a CPU."""

    def forward(self, given: Tensor) -> Tensor:
        """Zero with probability p, else divided by 1 - p; what was given, in evaluation mode."""
        if not self.training or given.device.type != "cpu" or given.element_size() != 2:
            return super().forward(given)
        dropped: Tensor = _Dropped.apply(given, self.p)  # type: ignore[no-untyped-call]
        return dropped


def quick_dropout(model: nn.Module) -> None:
    """Give every LoRA layer of a model the quick one."""
    for module in model.modules():
        if isinstance(module, LoraLayer):
            for name, dropout in module.lora_dropout.items():
                if type(dropout) is nn.Dropout:
                    module.lora_dropout[name] = QuickDropout(dropout.p)


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: Tensor, p: float) -> Tensor:
        kept = _kept(given.numel(), p).view(given.shape)
        ctx.save_for_backward(kept)
        ctx.scale = 1 / (1 - p)
        return _masked(given, kept, ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return _masked(grads[0], kept, ctx.scale), None


def _kept(count: int, p: float) -> Tensor:
    """(count,) int16: all bits set with probability 1 - p, none otherwise."""
    drawn = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    bits = drawn.view(torch.int16)[:count].bitwise_right_shift_(1)  # 15 random bits, so that the difference fits 16
    return bits.sub_(round(p * LEVELS) - LEVELS // 2).bitwise_right_shift_(15).bitwise_not_()  # its sign in every bit


def _masked(given: Tensor, kept: Tensor, scale: float) -> Tensor:
    return given.contiguous().view(torch.int16).bitwise_and(kept).view(given.dtype).mul_(scale)
