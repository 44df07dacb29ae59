"""FSDP2: torch's own `fully_shard`, on CPU (gloo) and GPU (NCCL) alike. One unit for each decoder layer, one for the
rest; through accelerate it would silently run as DDP on a CPU.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from rankwise.errors import TrainingError
from rankwise.train.engines.engine import MakeOptimizer
from rankwise.train.engines.sharded import Sharded


class Fsdp(Sharded):
    """Parameters, gradients and optimizer states split over all processes, gathered layer by layer."""

    name = "fsdp"

    @property
    def loads_on(self) -> torch.device:
        """The host's memory: the whole model need not fit a GPU. `fully_shard` moves each share to its device."""
        return torch.device("cpu")

    def wrap(self, model: Any, make_optimizer: MakeOptimizer) -> None:
        mesh = init_device_mesh(self.group.device.type, (self.group.world,))
        reshard = (self.config.fsdp_config or {}).get("reshard_after_forward", True)
        for layer in decoder_layers(model):
            fully_shard(layer, mesh=mesh, reshard_after_forward=reshard)
        fully_shard(model, mesh=mesh, reshard_after_forward=reshard)
        register_fsdp_forward_method(model, "generate")
        self.module = self.bare = model
        self.optimizer = make_optimizer(model)

    def backward(self, loss: Tensor) -> None:
        super().backward(loss * self.group.world)  # fully_shard averages

    def clip(self) -> Tensor:
        norm = super().clip()
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    @contextmanager
    def generating(self) -> Iterator[Any]:
        """`generate` calls the model's forward behind the outermost unit, whose own parameters stay gathered inside."""
        yield self.bare
        self.bare.reshard()

    def held_params(self) -> tuple[int, int]:
        parameters = list(self.bare.parameters())
        return sum(_local(p).numel() for p in parameters), sum(p.numel() for p in parameters)

    def gather(self, parameter: nn.Parameter) -> Tensor | None:
        whole = parameter.detach().full_tensor()  # type: ignore[attr-defined]
        return whole.cpu().clone() if self.group.first else None

    def put(self, parameter: nn.Parameter, whole: Callable[[], Tensor]) -> None:
        tensor = whole().to(self.group.device, parameter.dtype)
        # Every process reads the file itself, so nothing is sent.
        shared = distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)  # type: ignore[attr-defined]
        with torch.no_grad():
            _local(parameter).copy_(shared.to_local())

    def save_optimizer(self, folder: Path) -> None:
        """The shares of this process as plain tensors: a DTensor is nothing that `weights_only` would read."""
        said = self.optimizer.state_dict()
        state = {i: {key: _local(value) for key, value in values.items()} for i, values in said["state"].items()}
        torch.save({"state": state, "param_groups": said["param_groups"]}, self.own_optimizer_file(folder))

    def restore_optimizer(self, folder: Path) -> None:
        said = torch.load(self.own_optimizer_file(folder), weights_only=True)
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        state = {
            i: {key: _as_shared(value, parameters[i]) for key, value in values.items()}
            for i, values in said["state"].items()
        }
        self.optimizer.load_state_dict({"state": state, "param_groups": said["param_groups"]})


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The modules that transformers says must not be split. Raises TrainingError for a model that names none."""
    named = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    # By their base classes, too: `fully_shard` gives a module a class of its own.
    found = [m for m in model.modules() if named & {kind.__name__ for kind in type(m).__mro__}]
    if not found:
        raise TrainingError(
            f"{type(model).__name__} names no layers to be split by (`_no_split_modules`)",
            fix="set train.parallel to ddp or zero3",
        )
    return found


def _local(tensor: Any) -> Any:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _as_shared(value: Any, parameter: Any) -> Any:
    """A share as the DTensor that its parameter is; step counters stay as they are."""
    if not torch.is_tensor(value) or value.dim() == 0 or value.shape != _local(parameter).shape:
        return value
    return DTensor.from_local(
        value.to(parameter.device),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
