"""What is ordered of a cluster: nodes, devices, memory, disk, time, and the files that have to be there; of a plan."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise.errors import PlanError
from rankwise.hub import HUB_ID, dataset_id, split_of
from rankwise.records import Estimate, Job, Plan

GIB = 1 << 30
# Requests, not predictions: nothing in a plan measures the host. A process reads the base through the host's memory,
# beside it stand the interpreter, CUDA's libraries and pinned buffers.
HOST_BYTES_PER_PROCESS = 8 * GIB
CORES_PER_GPU = 8  # usual for rented nodes; tokenising and launching kernels need two or three
ENVIRONMENT_BYTES = 30_000_000_000  # torch with CUDA's libraries, the other packages, pip's cache
INSTALL_SECONDS = 1800  # a margin for installing and downloading, which no estimate covers
STORES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
}  # fsspec's packages
STOP_SECONDS = 120  # the least time that a run gets to save before it is killed


@dataclass(frozen=True)
class Wishes:
    """What the person said beside the plan; None: as the target has it.

    Attributes:
        shared: where all nodes see the same files: a folder (slurm, ray), a volume or bucket (skypilot), a claim
            (kubernetes).
        package: what pip installs as rankwise.
        hours: wall-clock limit.
        accelerator: the GPU's name where it is started, if the usual one is not used there.
    """

    shared: str | None = None
    package: str | None = None
    image: str | None = None
    hours: float | None = None
    accelerator: str | None = None


@dataclass(frozen=True)
class Order:
    """What every target has to know.

    Attributes:
        name: a DNS label, so that it may name anything on any target.
        plan: its plan.json, absolute.
        needs: files and folders that the run reads, absolute; they must be at the same paths where it runs.
        run: name of the run folder.
        model: as the job names it.
        from_hub: models and datasets that each node downloads.
        gpu: its name in our table; None: a CPU.
        cores, memory_bytes: of a node.
        volume_bytes: of the run, of what is downloaded for it, and of `needs`.
        limit_seconds: wall-clock; None: unknown. limit_source: where it comes from.
        stop_seconds: what a run needs to finish its step and save.
        requirements: what pip installs. save_url: where checkpoints are copied to.
        spot: was capacity priced that the provider may take back?
    """

    name: str
    plan: Path
    needs: tuple[Path, ...]
    run: str
    model: str
    from_hub: tuple[str, ...]
    nodes: int
    per_node: int
    gpu: str | None
    cores: int
    memory_bytes: int
    volume_bytes: int
    limit_seconds: int | None
    limit_source: str
    stop_seconds: int
    spot: bool
    requirements: tuple[str, ...]
    save_url: str | None
    wishes: Wishes

    @property
    def memory_gib(self) -> int:
        return math.ceil(self.memory_bytes / GIB)

    @property
    def volume_gb(self) -> int:
        """Of a volume that holds the run and what it reads, with a tenth for the file system."""
        return math.ceil(1.1 * self.volume_bytes / 1e9)

    @property
    def disk_gb(self) -> int:
        """Of a machine's disk, which holds the environment, too."""
        return math.ceil((1.1 * self.volume_bytes + ENVIRONMENT_BYTES) / 1e9)

    @property
    def processes(self) -> str:
        """Such as `2 nodes x 4 A100-80GB`."""
        return f"{self.nodes} node{'s' if self.nodes > 1 else ''} x {self.per_node} {self.gpu or 'process of CPU'}"


@dataclass(frozen=True)
class Files:
    """What a target makes of an order.

    Attributes:
        texts: file name -> content.
        start: the command that starts it; `{folder}` stands for the folder that holds the files.
        notes: what has to be so for it to work, one sentence each.
    """

    texts: dict[str, str]
    start: str
    notes: tuple[str, ...]


def order(plan: Plan, path: Path, gpu: str | None, needs_bytes: int, wishes: Wishes) -> Order:
    """The order of a plan that can be carried out.

    Args:
        path: of its plan.json.
        gpu: its device's name in the table of GPUs; None: a CPU, or a GPU that the table does not have.
        needs_bytes: what `local_files` take on the disk.

    Raises:
        PlanError: a plan without a call, or with rows that only this machine's cache has.
    """
    config, estimate = plan.verdict.config, plan.chosen()
    if config is None or estimate is None:
        raise PlanError(
            f"{path} has no call that could be started", fix="plan again; `rankwise show` says what is missing"
        )
    hardware, job = plan.job.hardware, plan.job
    _refuse_rows_of_this_cache(plan)
    from_hub = hub_names(job)
    downloaded = plan.facts.model.weight_bytes if from_hub else 0
    limit, source = _limit(estimate, wishes.hours)
    run = f"{job.name or 'job'}-{plan.job_hash[:8]}"
    return Order(
        name=_label(run),
        plan=path.absolute(),
        needs=local_files(job),
        run=run,
        model=job.model,
        from_hub=from_hub,
        nodes=hardware.nodes,
        per_node=hardware.count,
        gpu=gpu or (plan.facts.device.name if plan.facts.device.kind == "gpu" else None),
        cores=plan.facts.device.cores or CORES_PER_GPU * hardware.count,
        memory_bytes=_memory(plan, estimate),
        volume_bytes=estimate.storage.run_bytes + downloaded + needs_bytes,
        limit_seconds=limit,
        limit_source=source,
        stop_seconds=_stop(estimate),
        spot=job.costs.pricing == "spot",
        requirements=(wishes.package or _requirement(plan), *_stores(config.save_url)),
        save_url=config.save_url,
        wishes=wishes,
    )


def _refuse_rows_of_this_cache(plan: Plan) -> None:
    """Rows that the base wrote here lie in this machine's cache, and another machine would write others."""
    general = plan.job.data.general
    if general is None or general.self_generated is None:
        return
    named = set(map(str, _paths(plan.job.model_dump(exclude={"costs"}))))
    here = [name for name in plan.facts.data.files if name not in named]
    raise PlanError(
        "the general rows of this plan were written by the base into this machine's cache",
        expected="files that the nodes can have, too",
        fix=f"name the file in data.general.path and plan again: {', '.join(here)}",
    )


def local_files(job: Job) -> tuple[Path, ...]:
    """Files and folders on this machine that a run reads: every path of the job but its prices, and its model."""
    said = job.model_dump(exclude={"costs"})
    found = [path for path in _paths(said) if dataset_id(path) is None or path.is_absolute()]
    if Path(job.model).is_absolute():
        found.append(Path(job.model))
    whole = (path if path.exists() else Path(split_of(path)[0]) for path in found)
    return tuple(sorted(set(whole)))


def hub_names(job: Job) -> tuple[str, ...]:
    """Ids of models and datasets of the hub."""
    model = [job.model] if HUB_ID.fullmatch(job.model) else []
    paths = (path for path in _paths(job.model_dump(exclude={"costs"})) if not path.is_absolute())
    return tuple(model + sorted({name for path in paths if (name := dataset_id(path))}))


def _paths(value: Any) -> list[Path]:
    if isinstance(value, dict):
        return [path for inner in value.values() for path in _paths(inner)]
    if isinstance(value, list | tuple):
        return [path for inner in value for path in _paths(inner)]
    return [value] if isinstance(value, Path) else []


def _label(name: str) -> str:
    """A DNS label of at most 40 characters, since JobSet and pods add their own endings up to 63."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    plain = plain if plain[:1].isalpha() else f"run-{plain}"
    return plain if len(plain) <= 40 else f"{plain[:31].rstrip('-')}-{plain[-8:]}"


def _memory(plan: Plan, estimate: Estimate) -> int:
    """Bytes of the host, of a node."""
    count = plan.job.hardware.count
    if plan.facts.device.kind == "cpu":
        return math.ceil(estimate.memory.interval[1]) * count
    return (plan.facts.model.weight_bytes + HOST_BYTES_PER_PROCESS) * count


def _limit(estimate: Estimate, hours: float | None) -> tuple[int | None, str]:
    if hours is not None:
        return math.ceil(hours * 3600), f"{hours:g} h, as said by --hours"
    if estimate.time.interval is None:
        return None, "none: the plan could not say how long the run takes; --hours sets one"
    upper = estimate.time.interval[1]
    source = (
        f"upper end of the plan's estimate of the whole run ({upper / 3600:.2f} h), and "
        f"{INSTALL_SECONDS // 60} min to install and download"
    )
    return math.ceil((upper + INSTALL_SECONDS) / 60) * 60, source


def _stop(estimate: Estimate) -> int:
    """A stop waits for the step under way, and saves; twice that, for nothing else knows the disk."""
    step, save = estimate.time.step_seconds or 0.0, estimate.storage.write_seconds or 0.0
    return max(STOP_SECONDS, math.ceil(2 * (step + save) / 10) * 10)


def _requirement(plan: Plan) -> str:
    """Of the version that made the plan, with the extras that its configuration takes."""
    assert plan.verdict.config is not None
    extras = ["deepspeed"] if plan.verdict.config.deepspeed is not None else []
    extras += ["trackers"] if plan.job.train.trackers else []
    named = f"[{','.join(extras)}]" if extras else ""
    return f"rankwise{named}=={plan.rankwise_version}"


def _stores(url: str | None) -> list[str]:
    """What fsspec needs for the place that checkpoints are copied to."""
    name = STORES.get((url or "").partition("://")[0])
    return [name] if name else []
