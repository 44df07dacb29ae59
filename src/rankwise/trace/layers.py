"""Which decoder layer is running: by its `forward` on the way up, by autograd's sequence numbers on the way back."""

import functools
from bisect import bisect_right
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch._C._autograd import _get_sequence_nr

NO_LAYER = -1


class Layers:
    """Knows which decoder layer runs: by its `forward` on the way up, by autograd's sequence numbers in backward."""

    def __init__(self, model: nn.Module, count: int) -> None:
        self.prefix, self.stack = decoder_layers(model, count)
        self.inside = NO_LAYER
        self.last = NO_LAYER
        self.starts: list[int] = []
        self.owners: list[int] = []
        self.in_backward = False
        self.around_recomputation: Callable[[], AbstractContextManager[Any]] = nullcontext
        for i, layer in enumerate(self.stack):
            layer.forward = self._inside(i, layer.forward)
            for part in layer.modules():  # an adapter around the layer hides it
                if checkpointing := vars(part).get("_gradient_checkpointing_func"):
                    part._gradient_checkpointing_func = self._recomputable(i, checkpointing)  # type: ignore[assignment]

    def _recomputable(self, index: int, checkpointing: Callable[..., Any]) -> Callable[..., Any]:
        """transformers checkpoints a layer's class method, which the replaced `forward` of the object is outside of."""
        return lambda function, *args, **kwargs: checkpointing(self._inside(index, function), *args, **kwargs)

    def _inside(self, index: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Not a hook: checkpointing leaves a recomputed forward pass by an exception, and hooks are skipped then."""

        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            before, self.inside = self.inside, index
            self._mark(index)
            try:
                with self.around_recomputation() if self.in_backward else nullcontext():
                    return forward(*args, **kwargs)
            finally:
                self.inside = before
                self._mark(before)

        return run

    def _mark(self, owner: int) -> None:
        """From autograd node number n on, nodes belong to `owner`."""
        self.starts.append(_get_sequence_nr())
        self.owners.append(owner)

    def begin_forward(self) -> None:
        self.in_backward, self.starts, self.owners = False, [], []
        self._mark(NO_LAYER)

    def begin_backward(self) -> None:
        self.in_backward, self.last = True, NO_LAYER

    def now(self, phase: str) -> int:
        if self.inside != NO_LAYER:
            self.last = self.inside
            return self.inside
        if not self.in_backward or phase != "backward":
            return NO_LAYER
        node = torch._C._current_autograd_node()
        number = node._sequence_nr() if node is not None else None
        if number is not None and number < 1 << 62:  # AccumulateGrad nodes carry the largest number there is
            self.last = self.owners[bisect_right(self.starts, number) - 1]
        return self.last

    def of_name(self, name: str) -> int:
        """The layer that owns a parameter of this name."""
        if not name.startswith(self.prefix + "."):
            return NO_LAYER
        head = name[len(self.prefix) + 1 :].split(".", 1)[0]
        return int(head) if head.isdigit() else NO_LAYER


def decoder_layers(model: nn.Module, count: int) -> tuple[str, nn.ModuleList]:
    """Name and list of the decoder layers: the outermost nn.ModuleList of `count` modules. Raises LookupError."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise LookupError(f"{type(model).__name__} has no list of {count} layers")
