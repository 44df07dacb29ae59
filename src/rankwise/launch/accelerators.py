"""What a GPU is called on each target."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

from rankwise.launch.order import Order


@cache
def _table() -> dict[str, dict[str, str]]:
    return tomllib.loads(Path(__file__).with_name("accelerators.toml").read_text(encoding="utf-8"))


def usual_name(order: Order, target: Literal["skypilot", "slurm"]) -> str | None:
    """As the person says, else as most call it there; None: a CPU, or nobody knows."""
    if order.gpu is None:
        return None
    return order.wishes.accelerator or _table().get(order.gpu, {}).get(target)


def is_amd(order: Order) -> bool:
    """Its device plugin, its image and its build of torch are others than NVIDIA's."""
    return order.gpu is not None and order.gpu.startswith("MI")
