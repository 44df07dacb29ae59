"""Where the arms of a comparison work: on this machine's processor, on its GPUs side by side, or on a Ray cluster."""

import os
from collections.abc import Sequence
from importlib.util import find_spec

from rankwise.compare.folder import Folder
from rankwise.compare.processes import Local, Start
from rankwise.errors import UsageError
from rankwise.observe.devices import gpus_here
from rankwise.records import Plan


def places(folder: Folder, plan: Plan, ray: str | None, flags: Sequence[str] = ()) -> tuple[int, Start]:
    """(arms at a time, how one is started).

    Args:
        ray: address of a cluster; None: this machine.
        flags: more arguments of an arm's process.

    Raises:
        UsageError: there is no such cluster, or it has no room for one arm.
    """
    device = plan.facts.device
    if ray is not None:
        if find_spec("ray") is None:
            raise UsageError("--ray needs the package ray, which is not installed", fix="pip install 'rankwise[ray]'")
        from rankwise.compare.on_ray import OnRay, slots

        wanted = {"GPU": 1.0} if device.kind == "gpu" else {"CPU": float(device.cores or 1)}
        return slots(ray, wanted), lambda arm, _: OnRay(folder, arm, ray, wanted, flags)
    gpus = visible_gpus() if device.kind == "gpu" else []
    return max(1, len(gpus)), lambda arm, number: Local(folder, arm, gpus[number] if gpus else None, flags)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names each."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return [name.strip() for name in said.split(",") if name.strip()]
    return [str(number) for number in range(len(gpus_here()))]
