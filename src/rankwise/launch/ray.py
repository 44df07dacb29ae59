"""A script for Ray Train, and the environment that its job is submitted with.

Source: Ray 2.60: ray.train.torch.TorchTrainer, ray.train.collective, `ray job submit`. One Ray worker holds all devices
of a node, and starts there what every other target starts. Ray's own torch process group, which TorchTrainer makes in
its workers, is not used: the variables that it leaves (RANK, MASTER_PORT, …) are taken from the training's environment.
"""

import json
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from rankwise.errors import UsageError
from rankwise.launch import shell
from rankwise.launch.documents import dump
from rankwise.launch.order import Files, Order
from rankwise.launch.shared import shared_folder

RETRIES = 3  # attempts after the first, of faults and of lost nodes alike


def files(order: Order) -> Files:
    """`train_on_ray.py` and `runtime_env.yaml`.

    Raises:
        UsageError: --shared is no absolute folder, or --image is given.
    """
    if order.wishes.image:
        raise UsageError("--image is of no use to --on ray: the cluster has its own", fix="leave it out")
    shared = shared_folder(order)
    body = (resources("rankwise.launch") / "ray_train.py.txt").read_text(encoding="utf-8")
    body = body.replace("{settings}", "\n".join(_settings(order, shared)))
    text = shell.script(shell.heading(order, "Ray Train script")) + "\n" + body
    environment = dump({"pip": list(order.requirements)})
    start = "ray job submit --working-dir {folder} --runtime-env {folder}/runtime_env.yaml -- python train_on_ray.py"
    return Files({"train_on_ray.py": text, "runtime_env.yaml": environment}, start, tuple(_notes(order, shared)))


def _settings(order: Order, shared: Path) -> list[str]:
    settings: dict[str, Any] = {
        "NAME": order.name,
        "PLAN": str(order.plan),
        "RUN": str(shared / "runs" / order.run),
        "NODES": order.nodes,
        "DEVICES_PER_NODE": order.per_node,
        "USE_GPU": order.gpu is not None,
        "ACCELERATOR_TYPE": order.wishes.accelerator,
        "CPUS_PER_NODE": order.cores,
        "LIMIT_SECONDS": order.limit_seconds,
        "STOP_SECONDS": order.stop_seconds,
        "RETRIES": RETRIES,
        "FIRST": _first(order),
        "FINISHED": shell.FINISHED,
    }
    return [f"{name} = {_literal(value)}" for name, value in settings.items()]


def _literal(value: Any) -> str:
    """As Python writes it, texts in double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)


def _first(order: Order) -> list[str]:
    """Shell commands for every node, before the training."""
    return [*shell.install(order)[1:], *shell.fetch_base(order)]  # runtime_env.yaml installs the package itself


def _notes(order: Order, shared: Path) -> list[str]:
    notes = [
        f"all nodes must see, at these paths: {', '.join(map(str, (order.plan, *order.needs, shared)))}",
        "set RAY_API_SERVER_ADDRESS to the cluster, or add --address to the command",
    ]
    if order.from_hub:
        notes.append("a gated model needs HF_TOKEN in the environment of the cluster's nodes, not in this job")
    if order.gpu is not None and not order.wishes.accelerator:
        notes.append(
            "any node with enough GPUs is taken; --accelerator, Ray's name of yours as in "
            "ray.util.accelerators, picks it"
        )
    return notes
