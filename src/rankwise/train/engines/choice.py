"""The engine that a plan asks for."""

from collections.abc import Callable

from rankwise.records import TrainConfig
from rankwise.train.engines.ddp import Ddp
from rankwise.train.engines.engine import Engine
from rankwise.train.engines.fsdp import Fsdp
from rankwise.train.engines.group import Group
from rankwise.train.engines.inbackward import InBackward
from rankwise.train.engines.zero import Zero

ENGINES: dict[str, Callable[[Group, TrainConfig], Engine]] = {
    "none": Engine,
    "ddp": Ddp,
    "zero1": lambda group, config: Zero(group, config, "zero1"),
    "zero2": lambda group, config: Zero(group, config, "zero2"),
    "zero3": lambda group, config: Zero(group, config, "zero3"),
    "fsdp": Fsdp,
}


def start_engine(parallel: str, group: Group, config: TrainConfig) -> Engine:
    """Not yet wrapped around a model."""
    if config.optimizer_in_backward:
        return InBackward(group, config)
    return ENGINES[parallel](group, config)
