"""Run in the environment of `make launch-validators`: does the target's own library take this file?

python validator.py trainjob|volume|pod|skypilot|ray FILE
"""

import importlib.util
import sys
from pathlib import Path

import yaml


def trainjob(path: Path) -> None:
    from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob

    _same(TrainerV1alpha1TrainJob, path)


def volume(path: Path) -> None:
    from kubeflow_trainer_api.models.io_k8s_api_core_v1_persistent_volume_claim import (
        IoK8sApiCoreV1PersistentVolumeClaim,
    )

    _same(IoK8sApiCoreV1PersistentVolumeClaim, path)


def pod(path: Path) -> None:
    from kubeflow_trainer_api.models.io_k8s_api_core_v1_pod import IoK8sApiCoreV1Pod

    _same(IoK8sApiCoreV1Pod, path)


def _same(kind: type, path: Path) -> None:
    """The models pass over keys that they do not know: what comes out must be all that went in."""
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    read = kind.from_dict(said).to_dict()
    assert read == said, f"{read}\nis not\n{said}"


def skypilot(path: Path) -> None:
    import sky

    task = sky.Task.from_yaml(str(path))
    (resources,) = task.resources
    print(task.name, task.num_nodes, resources.accelerators, resources.disk_size, resources.use_spot)


def ray(path: Path) -> None:
    spec = importlib.util.spec_from_file_location("train_on_ray", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    scaling = module.trainer().scaling_config
    print(scaling.num_workers, scaling.total_resources, scaling.placement_strategy)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
