"""One process whose optimizer steps in the backward pass."""

from typing import Any

import torch
from torch import Tensor

from rankwise.train.engines.engine import Engine, MakeOptimizer
from rankwise.updates import OneByOne, finite


class InBackward(Engine):
    """Gradients are used and freed as they come: none is left to accumulate or to clip."""

    accumulates = False
    updates: OneByOne

    def wrap(self, model: Any, make_optimizer: MakeOptimizer) -> None:
        super().wrap(model, make_optimizer)
        assert isinstance(self.optimizer, OneByOne)
        self.updates = self.optimizer

    def backward(self, loss: Tensor) -> None:
        """A loss that is not finite must not come that far."""
        if finite(loss):
            super().backward(loss)

    def try_backward(self, loss: Tensor) -> None:
        with self.updates.idle():
            loss.backward()

    def clip(self) -> torch.Tensor:
        """The norm of the whole gradient, which was used as it is."""
        self.touched = self.updates.words()
        return self.updates.norm()
