"""The contract between the loop and what spreads a run over processes, and its simplest case: one process.

`backward`, `clip` and `step` are what `step.training_step` takes as arguments, so one step function serves them all and
the trace. A gradient is that of the sum over all processes: the loss of a process is already divided by the supervised
tokens of all of them, so what an engine averages has to be multiplied by their number.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rankwise.model.trained import restore_weights
from rankwise.records import TrainConfig
from rankwise.train.engines.group import Group

MakeOptimizer = Callable[[Any], torch.optim.Optimizer]


class Engine:
    """One process, and what the others change about it.

    Attributes:
        module: what a forward pass calls.
        bare: the model as transformers or PEFT know it.
        optimizer: torch's, for the schedule of its learning rates.
        splits: are parameters split over processes, so that none has the whole model?
        accumulates: do gradients wait for those of further passes?
        keeps_trials: is the gradient of `try_backward` there to be looked at?
        touched: what the last step did to the weights, for a message.
    """

    name = "none"
    splits = False
    accumulates = True
    keeps_trials = True
    touched = "the weights were not touched by this step"
    module: Any
    bare: Any
    optimizer: torch.optim.Optimizer

    def __init__(self, group: Group, config: TrainConfig):
        self.group, self.config = group, config

    # -- start -------------------------------------------------------------------------------------

    @property
    def loads_on(self) -> torch.device:
        """Where the model is loaded before `wrap`."""
        return self.group.device

    def loading(self) -> AbstractContextManager[object]:
        """Around the loading of the base."""
        return nullcontext()

    def wrap(self, model: Any, make_optimizer: MakeOptimizer) -> None:
        """Take a model with its method attached; `make_optimizer` is called with what holds its parameters then."""
        self.module = self.bare = model
        self.optimizer = make_optimizer(model)

    # -- a step ------------------------------------------------------------------------------------

    def begin(self, passes: int) -> None:
        """A step of so many forward and backward passes comes, the same number in every process."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of this process's part of the loss."""
        loss.backward()

    def try_backward(self, loss: Tensor) -> None:
        """A backward pass whose gradient is dropped afterwards: a rehearsal."""
        self.backward(loss)

    def clip(self) -> Tensor:
        """The norm of the whole gradient before clipping; the gradient has at most `max_grad_norm` after."""
        return nn.utils.clip_grad_norm_(self.bare.parameters(), self.config.max_grad_norm)

    def step(self) -> None:
        """Update the weights."""
        self.optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients."""
        self.optimizer.zero_grad(set_to_none=set_to_none)

    # -- looking -----------------------------------------------------------------------------------

    @contextmanager
    def generating(self) -> Iterator[Any]:
        """The model, ready for its `generate`; every process must call it alike."""
        yield self.bare

    def held_params(self) -> tuple[int, int]:
        """(numbers that this process holds, numbers of the whole model); tied ones count once."""
        whole = sum(p.numel() for p in self.bare.parameters())
        return whole, whole

    # -- what is kept ------------------------------------------------------------------------------

    def full_state(self, *, trained_only: bool) -> dict[str, Tensor] | None:
        """Whole parameters by name and persistent buffers, on the CPU of the first process; {} in the others. None:
        each process has the whole model, and the model's own state is it. All processes must call it.
        """
        return None

    def restore_weights(self, folder: Path) -> None:
        """Put saved weights back. Raises RunError, ModelError: the file does not fit the model."""
        restore_weights(self.bare, folder)

    def optimizer_files(self) -> tuple[str, ...]:
        """Names of the files that `save_optimizer` writes, over all processes."""
        return ("optimizer.pt",)

    def save_optimizer(self, folder: Path) -> None:
        """Tensors and numbers alone, so that `torch.load(weights_only=True)` reads them. Every process calls it."""
        if self.group.first:
            torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")

    def restore_optimizer(self, folder: Path) -> None:
        """Put it back."""
        self.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))

    def close(self) -> None:
        """Give up what the engine holds beside the model. The model can be looked at no more where it was split."""


def per_rank(group: Group) -> tuple[str, ...]:
    """Names of the optimizer's files where each process keeps its part."""
    return tuple(f"optimizer-{rank}-of-{group.world}.pt" for rank in range(group.world))
