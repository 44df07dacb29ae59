"""The fair bake-off, planned: arms, what each may spend, and the folder that both are written to."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankwise.api.checking import require_sound
from rankwise.api.dealing import Wanted, dealt
from rankwise.api.planning import load_job, plan_job
from rankwise.api.progress import Progress, quiet
from rankwise.api.replaying import ensure_replay
from rankwise.api.training import refuse_elsewhere, refuse_unready
from rankwise.compare.arms import read_arms
from rankwise.compare.budget import learning_rates
from rankwise.compare.folder import Folder
from rankwise.errors import JobError, RankwiseError
from rankwise.files import write_record
from rankwise.records import Allowance, Arm, Bakeoff, Job, MethodChoice, Plan
from rankwise.store import new_folder


def prepare_comparison(
    job: Path,
    wanted: Wanted,
    out: Path | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress = quiet,
) -> Folder:
    """The folder of a comparison with its plan in it: arms planned, measured where the budget is time, and budgets
    dealt. One that was begun by the same call is gone on with as it was planned.

    Raises:
        UsageError: an unknown method, a budget that is too small or has no price.
        RunError: the folder holds something else. AnswerIsNo, PlanError: an arm cannot run here.
    """
    began = time.monotonic()
    arms = read_arms(wanted.methods)
    read = load_job(job, options or {})
    _require_sides(read, arms)
    require_sound(read, progress)
    ensure_replay(read, progress)
    plans = _plans(read, arms, progress, here=wanted.ray is None)
    folder = Folder(out or new_folder("comparisons", read.name or job.stem))
    with folder.lock():
        asked = _asked(read, arms, plans, wanted)
        folder.begin(asked, plans)
        if not folder.bakeoff_path.is_file():
            write_record(folder.bakeoff_path, dealt(folder, asked, plans, wanted, began, progress))
    return folder


def _require_sides(job: Job, arms: tuple[Arm, ...]) -> None:
    """Raises UsageError where there is nothing to judge what is asked for."""
    if job.data.train is None:
        raise JobError("a comparison trains, and this job describes its data", fix="give data.train")
    if job.hardware.nodes > 1:
        raise JobError(
            f"hardware.nodes is {job.hardware.nodes}, and each arm is trained on one device",
            fix="leave it out; --ray takes the devices of a cluster",
        )
    if job.data.facts is None and (job.goal == "knowledge" or any(arm.kind == "retrieval" for arm in arms)):
        why = "retrieval is an arm" if job.goal != "knowledge" else "the goal is knowledge"
        raise JobError(
            f"{why}, and the job has no probes, so nothing would tell what a model knows",
            expected="data.facts: closed-book questions, one a line: question, answer, and choices if you like",
            fix="add data.facts, or --facts FILE",
        )


def _plans(job: Job, arms: tuple[Arm, ...], progress: Progress, *, here: bool) -> dict[str, Plan]:
    """Of each arm; one that is not trained gets that of the first trained one, or of the job's own method."""
    found: dict[str, Plan] = {}
    for done, arm in enumerate(arms, 1):
        if arm.method is not None:
            found[arm.name] = _planned(job, arm.method, arm.name, here=here)
        progress("arms planned", done, len(arms))
    usual = next(iter(found.values()), None) or _planned(job, job.method, "the job", here=here)
    return {arm.name: found.get(arm.name, usual) for arm in arms}


def _planned(job: Job, method: MethodChoice | None, name: str, *, here: bool) -> Plan:
    """On one device, without looks at general ability, which is asked at the end instead."""
    forgetting = job.forgetting.model_copy(update={"watch_steps": 0, "action": "warn", "tasks": (), "tasks_path": None})
    hardware = job.hardware.model_copy(update={"count": 1})
    off: dict[str, None] = dict.fromkeys(("parallel", "deepspeed", "save_url", "report_to", "max_steps"))
    if job.method is not None and method is not None and job.method.name != method.name:
        off["learning_rate"] = None  # it was meant for another method
    train = job.train.model_copy(update=off)
    own = {"method": method, "forgetting": forgetting, "hardware": hardware, "train": train}
    decided = plan_job(job.model_copy(update=own), brief=True)
    try:
        refuse_unready(decided)
        if here:
            refuse_elsewhere(decided)
    except RankwiseError as error:
        error.what = f"{name}: {error.what}"
        raise
    return decided


def _asked(job: Job, arms: tuple[Arm, ...], plans: Mapping[str, Plan], wanted: Wanted) -> Bakeoff:
    """The comparison before anything is dealt out."""
    first = next(iter(plans.values()))
    seed = job.train.seed or 0
    return Bakeoff(
        job=job,
        job_hash=job.content_hash(),
        base_hash=first.base_hash,
        unit=wanted.unit,
        budget=wanted.budget,
        seeds=tuple(range(seed, seed + wanted.seeds)),
        allowances=tuple(_undealt(arm, plans[arm.name], wanted.rates) for arm in arms),
        detectable=(),
        notes=(),
    )


def _undealt(arm: Arm, plan: Plan, rates: int) -> Allowance:
    estimate, config = plan.chosen(), plan.verdict.config
    assert estimate is not None and config is not None
    trained = arm.kind == "trained"
    stored = estimate.storage.adapter_bytes
    return Allowance(
        arm=arm,
        config=config if trained else None,
        step_flops=None,
        step_seconds=estimate.time.step_seconds if trained else None,
        steps=0,
        sweep_steps=0,
        learning_rates=learning_rates(config.learning_rate, rates) if trained else (),
        flops=0.0,
        training_seconds=None,
        evaluation_seconds=None,
        interval=None,
        peak_memory=estimate.memory.peak_device if trained else None,
        stored_bytes=(plan.facts.model.weight_bytes if stored is None else stored) if trained else 0,
    )
