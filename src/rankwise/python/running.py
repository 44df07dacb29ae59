"""Verbs that train: one run, or the arms of a comparison."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

from rankwise import api
from rankwise.api.progress import Progress, quiet
from rankwise.compare.folder import Folder
from rankwise.errors import UsageError
from rankwise.python.jobs import AnyJob, AnyRun, job_of, run_of
from rankwise.python.options import JobOptions
from rankwise.records import (
    Event,
    Plan,
)
from rankwise.records.bakeoff import BudgetUnit
from rankwise.store import Run, new_folder

Form = Literal["peft", "transformers", "gguf"]


def prepare(
    job: AnyJob | Plan,
    out: str | Path | None = None,
    options: dict[str, Any] | None = None,
    progress: Progress = quiet,
    **more: Unpack[JobOptions],
) -> Run:
    """A run folder that is ready to train. Example: `run = rw.prepare("job.yaml", "runs/first", seed=1)`

    Args:
        job: as `plan` takes it, a plan.json or its folder, or a Plan that was made on this machine.
        out: the run's folder; None: runs/<name>-<time>.
        options: keys of the job with dots, which win over it.
        progress: told (what, done, total).
        more: options as `plan` takes them.

    Raises:
        PlanError: the plan is stale, or cannot be carried out here. AnswerIsNo: nothing can run here.
        RunError, SpaceError: the folder is in use, the disk too small.
    """
    from rankwise.options import by_key

    folder = None if out is None else Path(out)
    said = dict(options or {}) | by_key(more)
    if isinstance(job, str | Path):
        return api.prepare(Path(job), folder, said, progress)
    if isinstance(job, Plan):
        return _prepare_plan(job, folder, said, progress)
    if options:
        raise UsageError("`options` with dotted keys goes with a file", fix="give them as keyword arguments")
    made = job_of(job, more)
    folder = folder or new_folder("runs", made.name or "run")
    api.write_plan(api.plan_job(made, folder, progress), folder)
    return api.prepare(folder, folder, {}, progress)


def _prepare_plan(plan: Plan, folder: Path | None, said: dict[str, Any], progress: Progress) -> Run:
    if said:
        raise UsageError("a plan is carried out as it stands", fix="plan again with these options")
    folder = folder or new_folder("runs", plan.job.name or "run")
    api.write_plan(plan, folder)
    return api.prepare(folder, folder, {}, progress)


def train(
    target: AnyJob | Plan | Run,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    on_event: Callable[[Event], None] | None = None,
    progress: Progress = quiet,
    **options: Unpack[JobOptions],
) -> Run:
    """Carry a job or a plan out to its end; returns the run, which shows what came of it.

    Example: `run = rw.train("job.yaml", out="runs/first")`

    Args:
        target: what `prepare` takes, or a run; with `resume` a run that was stopped.
        out: the run's folder.
        resume: go on from the last checkpoint.
        on_event: called with each event as it happens; None: a line for each on standard error, as the command does.
        progress: told (what, done, total) of what comes before training.
        options: those of `rankwise train`.

    Raises:
        As `prepare`; Interrupted: stopped on request; TrainingError: what went wrong. The run can be resumed.
    """
    run = _run_to_train(target, out, resume, options, progress)
    tell = on_event or _printer(run)
    for event in api.train(run, resume=resume):
        tell(event)
    api.report(run)
    return run


def events(run: AnyRun, *, resume: bool = False) -> Iterator[Event]:
    """Train a prepared run in a process of its own; yields its events. Example: `for e in rw.events(run): print(e)`

    Raises:
        Interrupted: stopped on request. RankwiseError: what went wrong; the run can be resumed.
    """
    return api.train(run_of(run), resume=resume)


def _run_to_train(target: Any, out: str | Path | None, resume: bool, options: Any, progress: Progress) -> Run:
    if isinstance(target, Run) or resume:
        if options or out is not None:
            raise UsageError("a run is trained as it was planned, in its folder", fix="give the job for another run")
        return run_of(target)
    return prepare(target, out, None, progress, **options)


def _printer(run: Run) -> Callable[[Event], None]:
    from rankwise.report.words import event_line

    config = run.plan().verdict.config
    total = config.max_steps if config else 0

    def line(event: Event) -> None:
        import sys

        sys.stderr.write(event_line(event, total) + "\n")

    return line


def compare(
    job: AnyJob,
    *,
    methods: str | Sequence[str],
    budget_flops: float | None = None,
    budget_minutes: float | None = None,
    budget_cost: float | None = None,
    seeds: int = 3,
    lr_sweep: int = 3,
    out: str | Path | None = None,
    ray: str | None = None,
    dry_run: bool = False,
    progress: Progress = quiet,
) -> Folder:
    """The fair bake-off: methods on your data at equal cost; returns the comparison, which shows what it found.

    Example: `rw.compare("job.yaml", methods="base,lora:r=8", budget_minutes=30).outcome().verdict`

    Args:
        job: a job file.
        methods: arms, as one string with commas or as a list.
        budget_flops, budget_minutes, budget_cost: of the whole comparison, one of them; cost in US dollars.
        seeds: final runs of each trained arm. lr_sweep: learning rates that each one tries.
        out: its folder; one that was begun by the same call is gone on with. ray: address of a cluster.
        dry_run: plan it, and stop.
        progress: told (what, done, total).

    Raises:
        UsageError: not exactly one budget, an unknown arm, too small a budget.
        Interrupted: stopped; the same call with `out` goes on.
    """
    if not isinstance(job, str | Path):
        raise UsageError("a comparison needs a job file, which it can be gone on with", fix="write the job to a file")
    said: dict[BudgetUnit, float | None] = {"flops": budget_flops, "minutes": budget_minutes, "usd": budget_cost}
    given = [(unit, amount) for unit, amount in said.items() if amount is not None]
    if len(given) != 1 or not 0 < given[0][1] < float("inf"):
        raise UsageError(
            "a comparison has one budget, above 0", expected="one of budget_flops, budget_minutes, budget_cost"
        )
    (unit, budget) = given[0]
    wanted = api.Wanted(methods if isinstance(methods, str) else ",".join(methods), unit, budget, seeds, lr_sweep, ray)
    folder = api.prepare_comparison(Path(job), wanted, None if out is None else Path(out), progress=progress)
    if not dry_run:
        for ahead in api.carry_out_comparison(folder, ray):
            progress(ahead.what, ahead.done, ahead.total)
        api.conclude_comparison(folder)
    return folder
