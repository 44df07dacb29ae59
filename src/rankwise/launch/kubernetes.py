"""A TrainJob of Kubeflow Trainer, a claim for its files, and the script that copies them there.

Source: kubeflow/trainer v2.3 (API v1alpha1): the runtime torch-distributed, whose container and job are both called
`node`, sets torchrun's PET_ variables; `runtimePatches` is there from v2.2 on. Pods are restarted by their Job: the
JobSet's pods have restartPolicy OnFailure, a Job's backoffLimit is 6.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from rankwise.errors import PlanError
from rankwise.launch import shell
from rankwise.launch.accelerators import is_amd
from rankwise.launch.documents import dump
from rankwise.launch.order import Files, Order
from rankwise.launch.shell import quote

RUNTIME = "torch-distributed"
NODE = "node"  # the runtime's job, and the container in it
IMAGE = "pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime"  # that of the runtime in v2.3
MOUNT = PurePosixPath("/rankwise")
SECRET, TOKEN = "huggingface", "HF_TOKEN"  # names, not values


def files(order: Order) -> Files:
    """`volume.yaml` (where no claim is given), `upload.sh`, `trainjob.yaml`.

    Raises:
        PlanError: a plan for a CPU; an AMD GPU without --image.
    """
    if order.gpu is None:
        raise PlanError(
            "this plan is for the CPU of the machine that made it, and a pod has another",
            fix="plan with hardware.gpu set to the GPU of your nodes",
        )
    if is_amd(order) and order.wishes.image is None:
        raise PlanError(
            f"the usual image is for NVIDIA's GPUs, and the plan is for {order.gpu}",
            fix="give --image with torch's ROCm build",
        )
    claim = order.wishes.shared or order.name
    head = "\n".join(shell.heading(order, "TrainJob for Kubeflow Trainer v2.2 and later")) + "\n"
    texts = {"upload.sh": _upload(order, claim), "trainjob.yaml": head + dump(_train_job(order, claim))}
    if order.wishes.shared is None:
        texts = {"volume.yaml": head + dump(_claim(order, claim)), **texts}
    start = "bash {folder}/upload.sh && kubectl create -f {folder}/trainjob.yaml"
    return Files(texts, start, tuple(_notes(order, claim)))


def _claim(order: Order, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteMany" if order.nodes > 1 else "ReadWriteOnce"],
            "resources": {"requests": {"storage": f"{order.volume_gb}G"}},
        },
    }


def _train_job(order: Order, claim: str) -> dict[str, Any]:
    limit = {} if order.limit_seconds is None else {"activeDeadlineSeconds": order.limit_seconds}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": order.name},
        "spec": {
            **limit,
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "ClusterTrainingRuntime", "name": RUNTIME},
            "trainer": {
                "image": order.wishes.image or IMAGE,
                "numNodes": order.nodes,
                "numProcPerNode": order.per_node,
                "resourcesPerNode": _resources(order),
                "env": _variables(order),
                "command": ["bash", "-c", _script(order)],
            },
            "runtimePatches": [{"manager": "rankwise", "trainingRuntimeSpec": _patch(order, claim)}],
        },
    }


def _resources(order: Order) -> dict[str, Any]:
    """Cores and memory are requests, so that a node with more of them is not held back."""
    gpus = {"amd.com/gpu" if is_amd(order) else "nvidia.com/gpu": str(order.per_node)}
    return {"requests": {"cpu": str(order.cores), "memory": f"{order.memory_gib}Gi", **gpus}, "limits": gpus}


def _variables(order: Order) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": "HF_HOME", "value": str(MOUNT / "huggingface")},
        {"name": "RANKWISE_CACHE", "value": str(MOUNT / "cache")},
        {"name": "PIP_BREAK_SYSTEM_PACKAGES", "value": "1"},  # the image's Python is the container's own
    ]
    if order.from_hub:
        reference = {"secretKeyRef": {"name": SECRET, "key": TOKEN, "optional": True}}
        found.append({"name": TOKEN, "valueFrom": reference})
    return found


def _script(order: Order) -> str:
    """Process 1 of the container: replaced by the training, so that SIGTERM of an eviction reaches it."""
    return shell.script(
        ["set -euo pipefail", *shell.install(order), *shell.fetch_base(order)],
        shell.unless_finished(quote(MOUNT / "runs" / order.run)),
        [f"exec {shell.train(order)}"],
    )


def _patch(order: Order, claim: str) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [
        {"name": "rankwise", "persistentVolumeClaim": {"claimName": claim}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},  # NCCL's; 64 MB otherwise
    ]
    mounts = [
        {"name": "rankwise", "mountPath": str(MOUNT)},
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        *(
            {"name": "rankwise", "mountPath": str(path), "subPath": str(_inside(path)), "readOnly": True}
            for path in (order.plan, *order.needs)
        ),
    ]
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": order.stop_seconds,
        "volumes": volumes,
        "containers": [{"name": NODE, "volumeMounts": mounts}],
    }
    if order.wishes.accelerator:
        label = "amd.com/gpu.product-name" if is_amd(order) else "nvidia.com/gpu.product"
        pod["nodeSelector"] = {label: order.wishes.accelerator}
    job = {"name": NODE, "template": {"spec": {"template": {"spec": pod}}}}
    return {"template": {"spec": {"replicatedJobs": [job]}}}


def _inside(path: Path) -> PurePosixPath:
    """Where a file of this machine lies on the volume."""
    return PurePosixPath("files", *path.parts[1:])


def _upload(order: Order, claim: str) -> str:
    """A pod that holds the claim while the files are written into it through tar."""
    pod = f"{order.name}-upload"
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod},
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "upload",
                    "image": "busybox:1.37",
                    "command": ["sleep", "86400"],
                    "volumeMounts": [{"name": "rankwise", "mountPath": str(MOUNT)}],
                }
            ],
            "volumes": [{"name": "rankwise", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }
    paths = " ".join(quote(str(path).lstrip("/")) for path in (order.plan, *order.needs))
    return shell.script(
        [
            "#!/bin/bash",
            "# Copies what the run reads into the claim, at the same paths below files/.",
            "set -euo pipefail",
        ],
        ['cd "$(dirname "$0")"', "kubectl apply -f volume.yaml"] if order.wishes.shared is None else [],
        ["kubectl apply -f - <<'EOF'", dump(manifest) + "EOF"],
        [
            f"trap 'kubectl delete pod {pod} --wait=false' EXIT",
            f"kubectl wait --for=condition=Ready pod/{pod} --timeout=10m",
        ],
        [
            f"kubectl exec {pod} -- mkdir -p {MOUNT / 'files'}",
            f"tar -chf - -C / {paths} | kubectl exec -i {pod} -- tar -xf - -C {MOUNT / 'files'}",
        ],
    )


def _notes(order: Order, claim: str) -> list[str]:
    notes = [
        f"the cluster needs Kubeflow Trainer v2.2 or later with its runtime {RUNTIME}",
        f"upload.sh copies {', '.join(map(str, (order.plan, *order.needs)))} into the claim {claim}",
        f"the run lies in the claim {claim}, below runs/{order.run}",
        "a pod that fails is started again 6 times, and goes on from the last checkpoint",
    ]
    if order.nodes > 1 and order.wishes.shared is None:
        notes.append(
            "volume.yaml asks for ReadWriteMany, which not every storage class has; --shared names another claim"
        )
    if order.from_hub:
        notes.append(f"a gated model needs a secret: kubectl create secret generic {SECRET} --from-literal={TOKEN}=…")
    if not order.wishes.accelerator:
        notes.append(
            f"any GPU is asked for; --accelerator, the label nvidia.com/gpu.product of your {order.gpu}, picks it"
        )
    return notes
