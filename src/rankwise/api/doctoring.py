"""What a run would find on this machine, and a self-check of its device."""

import json
from pathlib import Path

from rankwise.api.actuals import aside
from rankwise.api.progress import Progress, quiet
from rankwise.errors import RankwiseError
from rankwise.estimate import ledger
from rankwise.files import cache_folder
from rankwise.model.locate import locate
from rankwise.observe.catalogue import find_architecture
from rankwise.observe.devices import observe_device
from rankwise.records.job import Hardware
from rankwise.records.selfcheck import Environment, SelfCheck


def environment() -> Environment:
    """What a run would find here: versions, memory, disk, GPUs, caches. No torch, and less than a second."""
    from rankwise.observe.environment import observe_environment

    return observe_environment()


def doctor(*, gpu: bool, out: Path | None = None, progress: Progress = quiet) -> tuple[SelfCheck, Path]:
    """Run small real steps and the kernels they need on the GPU (or the CPU), compare them with the traces, and write
    what was found. Returns it with its file, which is in `out` or the cache folder.

    Raises:
        RankwiseError: no GPU where one is asked for.
        ModelError: the embedded model is missing.
    """
    if gpu:
        _require_gpu()
    from rankwise.estimate.selfcheck import Subject, ledger_entries, require_device, self_check, write

    device = "cuda:0" if gpu else "cpu"
    require_device(device)
    folder = locate("embedded")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    subjects = [Subject("embedded", config, folder, rows=4 if gpu else 2, length=512 if gpu else 128)]
    if gpu and (larger := find_architecture("llama-3.2-1b")):
        subjects.append(Subject(larger.name, larger.config, None, rows=2, length=1024))
    facts = observe_device(Hardware(gpu=None if gpu else "cpu"))
    found = self_check(device, facts, subjects, progress)
    with aside():
        ledger.append(*ledger_entries(found, facts))
    return found, write(found, out or cache_folder())


def _require_gpu() -> None:
    """Before torch is imported: a machine without a GPU is told in a moment."""
    found = environment()
    if not found.gpus:
        raise RankwiseError(
            "no CUDA GPU: nvidia-smi is missing or lists none, so the GPU self-check cannot run here",
            expected="an NVIDIA GPU with its driver, and a torch built for CUDA",
            fix="run `rankwise doctor --gpu` on the GPU machine; `rankwise doctor --cpu` runs the same steps here",
        )
