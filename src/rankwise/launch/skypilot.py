"""A task for SkyPilot's managed jobs, which start it again after a preemption.

Source: SkyPilot 0.14.1: sky/utils/schemas.py (task, resources, storage), sky/skylet/constants.py (variables of a node),
sky/data/mounting_utils.py (a cached mount is read and written like a disk, but nodes see each other's writes late).
"""

from pathlib import PurePosixPath
from typing import Any

from rankwise.errors import PlanError, UsageError
from rankwise.launch import shell
from rankwise.launch.accelerators import is_amd, usual_name
from rankwise.launch.documents import dump
from rankwise.launch.order import Files, Order
from rankwise.launch.shell import quote

MOUNT = PurePosixPath("/rankwise")
PORT = 29_500  # torchrun's own
ENVIRONMENT = '"$HOME/rankwise-env"'


def files(order: Order) -> Files:
    """`task.yaml`.

    Raises:
        PlanError: a plan for a CPU, or for a GPU that SkyPilot has no name for.
        UsageError: several nodes without a volume.
    """
    task: dict[str, Any] = {
        "name": order.name,
        "num_nodes": order.nodes,
        "resources": _resources(order),
        **({"secrets": {"HF_TOKEN": None}} if order.from_hub else {}),
        **_mounts(order),
        "setup": _setup(order),
        "run": _run(order),
    }
    text = shell.script(shell.heading(order, "SkyPilot task")) + dump(task)
    secret = " --secret HF_TOKEN" if order.from_hub else ""
    return Files({"task.yaml": text}, f"sky jobs launch{secret} {{folder}}/task.yaml", tuple(_notes(order)))


def _resources(order: Order) -> dict[str, Any]:
    if order.gpu is None:
        raise PlanError(
            "this plan is for the CPU of the machine that made it, and rented machines have another",
            fix="plan with hardware.gpu set to the GPU that you would rent",
        )
    name = usual_name(order, "skypilot")
    if name is None:
        raise PlanError(
            f"SkyPilot has no name that we know for {order.gpu}",
            fix="say it with --accelerator (`sky gpus list --all` shows them), or plan for another GPU",
        )
    return {
        "accelerators": f"{name}:{order.per_node}",
        "cpus": f"{order.cores}+",
        "memory": f"{order.memory_gib}+",
        "disk_size": order.disk_gb,
        "use_spot": order.spot,
        **({"image_id": f"docker:{order.wishes.image}"} if order.wishes.image else {}),
    }


def _mounts(order: Order) -> dict[str, Any]:
    """Files of this machine at the same paths there; the run in a bucket, or on a volume that all nodes share."""
    mounts: dict[str, Any] = {str(path): str(path) for path in (order.plan, *order.needs)}
    said = order.wishes.shared
    bucket = said is None or "://" in said
    if bucket and order.nodes > 1:
        raise UsageError(
            f"{order.nodes} nodes need a folder in which they see each other's files at once, and a bucket is none",
            expected="a volume that several nodes can mount",
            fix="make one (`sky volumes apply`) and give its name with --shared",
        )
    if not bucket:
        return {"volumes": {str(MOUNT): said}, "file_mounts": mounts}
    place = {"name": order.name} if said is None else {"source": said}
    return {"file_mounts": {**mounts, str(MOUNT): {**place, "mode": "MOUNT_CACHED"}}}


def _setup(order: Order) -> str:
    """On every node, at every start; uv comes with SkyPilot."""
    return shell.script(
        ["set -e"],
        ['export PATH="$HOME/.local/bin:$PATH"', f"[ -e {ENVIRONMENT} ] || uv venv --seed --python 3.11 {ENVIRONMENT}"],
        [f". {ENVIRONMENT}/bin/activate", *shell.install(order), *shell.fetch_base(order)],
    )


def _run(order: Order) -> str:
    rendezvous = [
        f'export PET_NNODES="$SKYPILOT_NUM_NODES" PET_NPROC_PER_NODE={order.per_node}',
        f'export PET_NODE_RANK="$SKYPILOT_NODE_RANK" PET_MASTER_PORT={PORT}',
        'PET_MASTER_ADDR=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)',
        "export PET_MASTER_ADDR",
    ]
    return shell.script(
        ["set -e", f". {ENVIRONMENT}/bin/activate"],
        shell.unless_finished(quote(MOUNT / "runs" / order.run)),
        rendezvous if order.nodes > 1 else [],
        [shell.train_in_time(order)],
    )


def _notes(order: Order) -> list[str]:
    place = order.wishes.shared or f"a bucket that is made for it, {order.name}"
    notes = [
        f"copied from this machine when it is started: {', '.join(map(str, (order.plan, *order.needs)))}",
        f"the run lies in {place}, below runs/{order.run}; it outlives the machines and is yours to delete",
        "sky jobs launch starts it again after a preemption, sky launch does not; an error of the run ends it",
    ]
    if order.from_hub:
        notes.append("HF_TOKEN is taken from your shell and sent as a secret; drop --secret where it is not needed")
    if is_amd(order) and order.wishes.image is None:
        notes.append("AMD GPUs need torch's ROCm build: give --image with one")
    return notes
