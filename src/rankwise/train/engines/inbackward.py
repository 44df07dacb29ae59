"""One process whose optimizer steps in the backward pass, so that no gradient waits for another."""

from typing import cast

import torch
from torch import Tensor

from rankwise.train.engines.engine import Engine
from rankwise.updates import OneByOne, finite


class InBackward(Engine):
    """Gradients are used and freed as they come: they can be neither accumulated nor clipped."""

    accumulates = False
    keeps_trials = False

    @property
    def _steps(self) -> OneByOne:
        return cast(OneByOne, self.optimizer)

    def backward(self, loss: Tensor) -> None:
        """Update as the gradients come; a loss that is not finite must not come that far."""
        if finite(loss):
            loss.backward()

    def try_backward(self, loss: Tensor) -> None:
        with self._steps.idle():
            loss.backward()

    def clip(self) -> torch.Tensor:
        """The norm of the gradient that was used; nothing is clipped."""
        self.touched = self._steps.words()
        return self._steps.norm()
