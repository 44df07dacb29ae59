"""A whole copy in every process, gradients averaged: torch's DistributedDataParallel."""

from typing import Any

from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from rankwise.train.engines.engine import Engine, MakeOptimizer


class Ddp(Engine):
    """DistributedDataParallel. Gradients are exchanged once a step, in its last backward pass."""

    name = "ddp"
    module: DistributedDataParallel

    def wrap(self, model: Any, make_optimizer: MakeOptimizer) -> None:
        self.bare = model
        gpu = self.group.device.type == "cuda"
        # Buffers (rotary frequencies) never change: sending them before every forward pass would also make looking at
        # the model a matter of all processes.
        self.module = DistributedDataParallel(
            model, device_ids=[self.group.device] if gpu else None, broadcast_buffers=False
        )
        self.optimizer = make_optimizer(model)

    def begin(self, passes: int) -> None:
        self._left = passes
        self._exchange_in_last()

    def backward(self, loss: Tensor) -> None:
        super().backward(loss * self.group.world)
        self._left -= 1
        self._exchange_in_last()

    def _exchange_in_last(self) -> None:
        """What DistributedDataParallel.no_sync sets; read in the forward pass that comes."""
        self.module.require_backward_grad_sync = self._left == 1
