"""A model of 16-bit weights that computes in fp32, one module's weights at a time."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

HALF = (torch.bfloat16, torch.float16)


@contextmanager
def in_fp32(model: nn.Module) -> Iterator[None]:
    """Inside, what passes through the model is fp32: a module's 16-bit weights are raised while it runs and are the
    very same tensors after it, so memory grows by the largest module alone. Quantised layers multiply as they always
    do: bitsandbytes would make other values of 4-bit weights in fp32 than those that were trained over.
    """
    below: dict[nn.Module, list[tuple[nn.Parameter, torch.Tensor]]] = {}

    def raise_weights(module: nn.Module, *_: Any) -> None:
        if module not in below:  # one that calls itself is up already
            own = _half_weights(module)
            below[module] = [(p, p.data) for p in own]
            for parameter in own:
                parameter.data = parameter.data.float()

    def put_back(module: nn.Module, *_: Any) -> None:
        for parameter, stored in below.pop(module, ()):
            parameter.data = stored

    with ExitStack() as stack:
        for module in model.modules():
            if _half_weights(module):
                stack.callback(module.register_forward_pre_hook(raise_weights).remove)
                stack.callback(module.register_forward_hook(put_back, always_call=True).remove)
        yield


def _half_weights(module: nn.Module) -> list[nn.Parameter]:
    """Those a module computes with. PEFT's layers take the weights of what they wrap without calling it (DoRA's norms,
    the rows of new tokens), so these are theirs too.
    """
    wraps = isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
    return [p for p in module.parameters(recurse=wraps) if p.dtype in HALF]
