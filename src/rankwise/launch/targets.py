"""The places where a plan can be started, by the name that --on takes."""

from collections.abc import Callable

from rankwise.launch import kubernetes, ray, skypilot, slurm
from rankwise.launch.order import Files, Order

TARGETS: dict[str, Callable[[Order], Files]] = {
    "slurm": slurm.files,
    "skypilot": skypilot.files,
    "kubernetes": kubernetes.files,
    "ray": ray.files,
}
