"""From a job or a plan to a run that trains, or goes on training."""

import shutil
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rankwise.api.actuals import aside, keep_training_times
from rankwise.api.checking import require_sound
from rankwise.api.observing import model_of
from rankwise.api.planning import load_job, plan_job
from rankwise.api.progress import Progress, quiet
from rankwise.api.replaying import ensure_replay
from rankwise.decide.parallel import not_carried_out
from rankwise.decide.recipes import EXECUTED
from rankwise.errors import AnswerIsNo, DataError, JobError, PlanError, RunError, SpaceError, UsageError
from rankwise.files import hash_file, read_record, require_space
from rankwise.methods import METHODS
from rankwise.observe.devices import gpus_here, observe_device
from rankwise.observe.gpus import match_gpu
from rankwise.records import Event, ModelFacts, Plan
from rankwise.store import Run, list_runs, new_folder
from rankwise.text.sources import hash_source
from rankwise.train.nodes import nodes_of, wait_for_folder
from rankwise.train.trackers import require_installed

NOT_OF_THIS_PLACE = ("kept_library", "works_together")  # rules that hold on any machine


def _require_deepspeed(decided: Plan) -> None:
    parallel = decided.verdict.parallel or ""
    if not parallel.startswith("zero"):
        return
    if find_spec("deepspeed") is None:
        raise PlanError(
            f"this plan is for {parallel}, and the package deepspeed is not installed",
            fix="pip install --no-build-isolation deepspeed, or set train.parallel to fsdp",
        )
    if decided.facts.device.kind == "cpu" and shutil.which("g++") is None:
        raise PlanError(
            f"this plan is for {parallel} on a CPU, for which DeepSpeed compiles an operator, and there is no g++",
            fix="install g++, or set train.parallel to fsdp",
        )


def _require_place_of_copies(decided: Plan) -> None:
    """Can this machine speak the protocol of train.save_url? Raises JobError."""
    config = decided.verdict.config
    if config is not None and config.save_url:
        from rankwise.train.mirror import require_protocol  # here: most runs copy nothing, and start without fsspec

        require_protocol(config.save_url)


def prepare(target: Path, out: Path | None, options: Mapping[str, Any], progress: Progress = quiet) -> Run:
    """A run folder that is ready to train: from a job (planned now) or from a plan.json (checked to be still true).
    Where the job asks for replay that the base writes, it is written now.

    Raises:
        PlanError: the plan is stale or described data that is not there.
        JobError: a package that train.save_url or train.report_to needs is missing.
        AnswerIsNo: nothing can run here, or the rows would train the wrong thing.
        RunError, SpaceError: the folder is in use, the disk too small.
    """
    if target.is_dir() or target.suffix == ".json":
        decided = _plan_from_file(target, options, progress)
    else:
        job = load_job(target, options)
        ensure_replay(job, progress)  # before the plan counts its rows
        decided = plan_job(job, out, progress)
    refuse_unready(decided)
    refuse_elsewhere(decided)
    _require_deepspeed(decided)
    require_installed(decided.job.train.trackers)
    nodes = nodes_of(decided.job.hardware)
    if nodes.count > 1 and (out is None or not (target.is_dir() or target.suffix == ".json")):
        raise UsageError(
            "several nodes carry out one plan in one folder that all of them see",
            expected="rankwise train PLAN --out DIR, the same on every node",
            fix="`rankwise plan` the job once, and give every node its plan.json",
        )
    if nodes.rank > 0:
        assert out is not None
        return wait_for_folder(Run(out), decided)
    _require_place_of_copies(decided)
    require_sound(decided.job, progress)
    run = Run(out or new_folder("runs", decided.job.name or "run"))
    estimate = decided.chosen()
    assert estimate is not None
    require_space(run.folder, estimate.storage.run_bytes, f"this run ({decided.verdict.candidate})")
    run.begin(decided)
    return run


def _plan_from_file(target: Path, options: Mapping[str, Any], progress: Progress) -> Plan:
    path = target / "plan.json" if target.is_dir() else target
    decided = read_record(path, Plan)
    if said := [key for key, value in options.items() if value is not None]:
        raise UsageError(
            f"a plan is carried out as it stands, but {', '.join(said)} would change it",
            fix="give the job instead of the plan, with these options",
        )
    ensure_replay(decided.job, progress)
    return _with_base_of_here(decided, refuse_stale(decided, path))


def _with_base_of_here(decided: Plan, base: ModelFacts) -> Plan:
    """The same weights may lie in another folder than where the plan was made: the cache of the hub, say."""
    model = decided.facts.model.model_copy(update={"folder": base.folder})
    return decided.model_copy(update={"facts": decided.facts.model_copy(update={"model": model})})


def refuse_stale(decided: Plan, path: Path) -> ModelFacts:
    """A plan holds only for the base, the data and the device that it was made for; returns the base as it is here.

    Raises:
        PlanError: one of them is another now.
    """
    changed = []
    base = model_of(decided.job)
    if base.weights_hash != decided.base_hash:
        changed.append("the base model")
    changed += [
        f"the data in {name}" for name, digest in decided.facts.data.files.items() if not _holds(Path(name), digest)
    ]
    if (adapter := decided.facts.adapter) is not None and decided.facts.parent is not None:
        weights = Path(adapter.folder) / "adapter_model.safetensors"
        if not weights.is_file() or hash_file(weights) != decided.facts.parent.weights:
            changed.append(f"the adapter {adapter.folder}")
    if observe_device(decided.job.hardware).identity_hash != decided.hardware_hash:
        changed.append("the device")
    if changed:
        raise PlanError(
            f"{path} is stale: {', '.join(changed)} changed since it was made",
            fix="plan again with `rankwise plan` and the job file, or train from the job file, which plans again",
        )
    return base


def _holds(source: Path, digest: str) -> bool:
    """Does a file, folder or dataset still hold what was hashed? What cannot be read does not."""
    try:
        return hash_source(source) == digest
    except (DataError, OSError):
        return False


def refuse_unready(decided: Plan) -> None:
    """A plan is carried out, here or elsewhere, when it has a call that `train` can do, and its files were looked at.

    Raises:
        PlanError, SpaceError; AnswerIsNo: nothing can run.
    """
    if decided.verdict.config is None:
        broken = [r for r in decided.rejected if r.rule not in NOT_OF_THIS_PLACE]
        ways = [f.if_ for f in decided.flips] + [r.would_flip_if for r in broken if r.would_flip_if]
        why = "; ".join(f"{r.method}: {r.number or r.text}" for r in broken)
        if all(r.rule == "disk_fits" for r in broken):
            raise SpaceError(f"not enough disk for this run: {why}", fix=f"it would work if {ways[0]}" if ways else "")
        raise AnswerIsNo(f"nothing can run here: {why}", fix=f"it would work if {ways[0]}" if ways else "")
    if not decided.verdict.executable:
        verdict = decided.verdict
        unspread = not_carried_out(verdict.method, verdict.parallel or "none", decided.verdict.config)
        raise PlanError(
            f"this version's training does not carry out {verdict.candidate}{f': {unspread}' if unspread else ''}",
            expected=f"{', '.join(METHODS)}, nothing offloaded, with {' or '.join(EXECUTED)}",
            fix="force one of these with `method`, or take the plan's configuration to another launcher",
        )
    if decided.facts.model.folder is None:
        raise PlanError(
            f"this plan is for {decided.job.model} by its config alone; its files were not looked at",
            fix="give data.train, so that the plan reads the model's files",
        )
    if decided.job.data.train is None:
        raise PlanError(
            "this plan describes its data (examples, tokens_per_example); there are no rows to train on",
            fix="give data.train",
        )


def refuse_elsewhere(decided: Plan) -> None:
    """A plan for a GPU by its name runs where such GPUs are."""
    device, wanted = decided.facts.device, decided.job.hardware.count
    if device.kind == "gpu" and device.available_bytes is None and (found := _of_that_name(device.name)) < wanted:
        raise PlanError(
            f"this plan is for {device.name}, of which a node needs {wanted}, and this machine has {found}",
            fix="`rankwise launch` writes the files that start it elsewhere (Slurm, SkyPilot, Kubernetes, Ray); "
            "or drop hardware.gpu from the job to plan for this machine",
        )


def _of_that_name(name: str) -> int:
    """GPUs of this machine that our table calls so."""

    def is_one(found: str) -> bool:
        try:
            return bool(match_gpu(found)["name"] == name)
        except JobError:
            return False

    return sum(is_one(gpu["name"]) for gpu in gpus_here())


def train(run: Run, *, resume: bool = False) -> Iterator[Event]:
    """Train in a process of its own; yields events as they happen and leaves evidence.json behind.

    Raises:
        Interrupted: stopped on request. RankwiseError: what went wrong; the run can be resumed.
    """
    from rankwise.train.launch import launch

    if resume:
        refuse_stale(run.plan(), run.plan_path)
        if run.state() == "finished":
            raise RunError(f"{run.folder} has finished; there is nothing to resume", fix="`rankwise show` shows it")
    first = nodes_of(run.plan().job.hardware).rank == 0
    if first:
        _require_place_of_copies(run.plan())
        with run.lock():
            pass  # say so here, in one sentence, when another process holds the folder
    yield from launch(run, resume=resume)
    if first:
        with aside():
            keep_training_times(run)


def latest_unfinished(root: Path) -> Run:
    """The newest run below `root` that can be resumed. Raises RunError when there is none."""
    for run in reversed(list_runs(root)):
        if run.state() in ("stopped", "killed", "failed"):
            return run
    raise RunError(f"no run in {root}/ can be resumed", fix="`rankwise runs` lists them")
