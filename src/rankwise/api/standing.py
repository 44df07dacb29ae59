"""Where a folder stands on the road from a job to what is served, and the command to type next."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rankwise.errors import RunError
from rankwise.store import Run, list_runs

NAMES = ("job", "plan", "train", "eval", "merge", "verify", "export")
RESUMABLE = ("stopped", "killed", "failed")
LOOKED_AT = 50  # newest runs: each has its events read, and a folder may hold years of them
OF_OTHER_TOOLS = ("base_model", "model_name_or_path")  # keys of Axolotl's files, and of LLaMA-Factory's and TRL's

SMALLEST_JOB = "{goal: instruction, model: embedded, data: {train: rows.jsonl}}"


@dataclass(frozen=True)
class Stop:
    """A stop of the road, and what this folder has of it."""

    name: str
    state: Literal["done", "next", "ahead", "left out"]
    found: str = ""


@dataclass(frozen=True)
class Step:
    """A command line, and why one would type it. Capitals in it stand for what only a person knows."""

    command: str
    why: str


@dataclass(frozen=True)
class Road:
    """Where a folder stands.

    Attributes:
        stops: in the order of the road.
        next: what to type now.
        others: what else lies at hand.
        damaged: what could not be read.
    """

    stops: tuple[Stop, ...]
    next: Step
    others: tuple[Step, ...] = ()
    damaged: tuple[str, ...] = ()


def road(here: Path = Path()) -> Road:
    """The road as far as this folder has come, from its files alone: nothing is priced and no weights are read.

    Args:
        here: a working folder, or a run's own.
    """
    jobs, (runs, damaged) = _jobs(here), _runs(here)
    running = [run for run in runs if run.state == "running"]
    resumable = [run for run in runs if run.state in RESUMABLE and not _done_again(run, runs)]
    newest = next(iter(runs), None)
    changed = bool(jobs) and (newest is None or jobs[0].stat().st_mtime > max(run.planned for run in runs))
    if running:  # before what can be resumed: two trainings on one machine may end both
        stops, step = _of_run(running[0])
    elif resumable:
        stops, step = _of_run(resumable[0])
    elif changed:
        stops, step = _of_job(jobs[0], newest)
    elif newest is not None:
        stops, step = _of_run(newest)
    else:
        return Road(_stops(0), *_of_nothing(here), damaged)
    others = [s for run in (*running, *resumable) if (s := _of_run(run)[1]) != step]
    return Road(stops, step, (*others, *_beside(here, newest, step)), damaged)


@dataclass(frozen=True)
class _Seen:
    run: Run
    state: str
    job_hash: str
    planned: float
    active: float


def _runs(here: Path) -> tuple[list[_Seen], tuple[str, ...]]:
    """(runs, newest first; what is damaged): those below runs/, those that lie here, and this folder itself."""
    folders = [run.folder for run in (*list_runs(here / "runs"), *list_runs(here))]
    if (here / "plan.json").is_file():
        folders.append(here)
    seen, damaged = [], []
    for folder in sorted(folders, key=_active, reverse=True)[:LOOKED_AT]:
        run = Run(folder)
        try:
            if run.evidence_path.is_file():
                run.evidence()  # said here, so that the road stands where one run of many is damaged
            planned = run.plan_path.stat().st_mtime
            seen.append(_Seen(run, run.state(), run.plan().job_hash, planned, _active(folder)))
        except RunError as error:
            damaged.append(error.what)
    return seen, tuple(damaged)


def _active(folder: Path) -> float:
    """When a run last said something, in seconds since 1970."""
    run = Run(folder)
    return max(p.stat().st_mtime for p in (run.plan_path, run.events_path, run.evidence_path) if p.is_file())


def _done_again(run: _Seen, runs: list[_Seen]) -> bool:
    """The same job was trained to its end later."""
    return any(r.state == "finished" and r.job_hash == run.job_hash and r.active > run.active for r in runs)


def _jobs(here: Path) -> list[Path]:
    """Job files of this folder, newest first; those of a run folder are its record, not its job."""
    if (here / "plan.json").is_file():
        return []
    found = [path for path in _yaml(here) if _has_key(path, "model") and _has_key(path, "goal", "data")]
    return sorted(found, key=lambda p: (p.stat().st_mtime, p.stem == "job"), reverse=True)


def _yaml(here: Path) -> Iterator[Path]:
    return (p for p in sorted(here.glob("*.y*ml")) if p.suffix in (".yaml", ".yml") and p.is_file())


def _has_key(path: Path, *names: str) -> bool:
    """Does one of these keys stand at the top level? By the text alone, since the file may be half-written."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return re.search(rf"^({'|'.join(names)})\s*:", text, re.MULTILINE) is not None


def _of_job(job: Path, newest: _Seen | None) -> tuple[tuple[Stop, ...], Step]:
    why = "it changed since the last plan" if newest else "it has no plan yet"
    return _stops(1, str(job)), Step(f"rankwise plan {_quoted(job)}", f"{job}: {why}")


def _of_nothing(here: Path) -> tuple[Step, tuple[Step, ...]]:
    """Where there is neither job nor run: rows or another tool's file, if they lie here; else a plan needs no file."""
    described = Step(
        "rankwise plan --model embedded --goal instruction --examples 2000 --tokens-per-example 300",
        "needs no file: your data is described, and the model ships with Rankwise",
    )
    if theirs := next((path for path in _yaml(here) if _has_key(path, *OF_OTHER_TOOLS)), None):
        return Step(f"rankwise plan --from {_quoted(theirs)}", f"{theirs} is of another tool"), (described,)
    if rows := next(iter(sorted(here.glob("*.jsonl"))), None):
        return Step(f"rankwise check {_quoted(rows)} --model embedded", f"is {rows} sound to train on?"), (described,)
    written = Step("rankwise plan job.yaml", f"once a file job.yaml says what you want: {SMALLEST_JOB}")
    return described, (written, Step("rankwise doctor", "what a run would find on this machine"))


def _of_run(seen: _Seen) -> tuple[tuple[Stop, ...], Step]:
    run, name = seen.run, _quoted(seen.run.folder)
    if seen.state == "running":
        step = Step(f"rankwise watch {name} --live", f"{run.folder} is training now")
        return _stops(2, *_planned(run), train=f"{run.folder} is training"), step
    if seen.state in RESUMABLE:
        how = _how_it_ended(run, seen.state)
        step = Step(f"rankwise train {name} --resume", f"{run.folder} {how}; it goes on from its last checkpoint")
        return _stops(2, *_planned(run), train=how), step
    if seen.state == "planned":
        return _stops(2, *_planned(run)), _of_plan(run, name)
    return _of_finished(run, name)


def _planned(run: Run) -> tuple[str, str]:
    return str(run.folder / "job.yaml"), str(run.plan_path)


def _how_it_ended(run: Run, state: str) -> str:
    events, plan = run.events(), run.plan()
    step = max((getattr(event, "step", None) or 0 for event in events), default=0)
    total = plan.verdict.config.max_steps if plan.verdict.config else None
    return f"{'was ' if state != 'failed' else ''}{state} at step {step:,}{f' of {total:,}' if total else ''}"


def _of_plan(run: Run, name: str) -> Step:
    plan = run.plan()
    if plan.verdict.config is None:
        return Step(f"rankwise report {name}", "nothing fits this job: the page says what would, under flip points")
    if plan.job.data.train is None:
        model = shlex.quote(plan.job.model)
        return Step(f"rankwise check ROWS --model {model}", f"{run.folder} describes its data: training needs the rows")
    device = plan.facts.device
    if device.kind == "gpu" and device.available_bytes is None:
        return Step(f"rankwise launch {name} --on TARGET", f"its plan is for {device.name}, which is not here")
    return Step(f"rankwise train {_quoted(run.plan_path)}", f"{run.folder} is planned, and nothing trained yet")


def _of_finished(run: Run, name: str) -> tuple[tuple[Stop, ...], Step]:
    evaluated = run.evidence_path.is_file() and run.evidence().evaluation is not None
    no_merge = _why_no_merge(run)
    merged, proven = (run.folder / "merged_to").is_file(), run.artifact_path.is_file()
    job, plan = _planned(run)
    done = {"job": job, "plan": plan, "train": str(run.folder)}
    done |= {"eval": "evaluated"} if evaluated else {}
    done |= {"merge": "merged"} if merged else {}
    done |= {"verify": "proven"} if proven else {}
    done |= {"export": "exported"} if (exported := (run.folder / "export").is_dir()) else {}
    form = "transformers" if merged or run.model.is_dir() else "peft"
    if not evaluated:
        at, step = "eval", Step(f"rankwise eval {name}", "does it know, or does it only sound so?")
    elif not (merged or proven or no_merge):
        at, step = "merge", Step(f"rankwise merge {name}", "folds the adapter into its base, and proves that")
    elif not proven:
        at, step = "verify", Step(f"rankwise verify {name}", "what is not proven is neither exported nor served")
    elif exported or run.plan().job.variants > 1:
        at, step = "export", Step(f"rankwise tenants add NAME {name}", "takes it in, to be served to a tenant")
    else:
        at, step = "export", Step(f"rankwise export {name} --to {form}", "it is proven: others may load it")
    return _laid_out(done, at, {"merge": no_merge} if no_merge and not merged else {}), step


def _why_no_merge(run: Run) -> str:
    """Why there is nothing to merge; empty where there is."""
    from rankwise.decide.compatibility import refused

    plan = run.plan()
    if not run.adapter.is_dir():
        return "the whole model was trained"
    if never := refused(plan.verdict.method, "merge"):
        return never.why
    return "tenants share one base, and each keeps its adapter" if plan.job.variants > 1 else ""


def _beside(here: Path, newest: _Seen | None, step: Step) -> Iterator[Step]:
    """What else one would look at: what came of the newest run, and comparisons that are not finished."""
    if newest is not None and newest.state == "finished":
        yield Step(f"rankwise show {_quoted(newest.run.folder)}", "what came of it")
        if step.command.startswith("rankwise export"):
            yield Step(f"rankwise tenants add NAME {_quoted(newest.run.folder)}", "or serve it beside others")
    for folder in sorted((here / "comparisons").glob("*")):
        if (folder / "asked.json").is_file() and not (folder / "outcome.json").is_file():
            yield Step(f"rankwise show {_quoted(folder)}", "a comparison that is not finished")


def _stops(reached: int, *found: str, train: str = "") -> tuple[Stop, ...]:
    """The first `reached` stops are done, the one behind them is next."""
    done = dict(zip(NAMES, (*found, *[""] * reached)[:reached], strict=False))
    return _laid_out(done, NAMES[reached], {}, train)


def _laid_out(done: dict[str, str], at: str, left_out: dict[str, str], train: str = "") -> tuple[Stop, ...]:
    def stop(name: str) -> Stop:
        if name in left_out:
            return Stop(name, "left out", left_out[name])
        if name == at:
            return Stop(name, "next", train)
        return Stop(name, "done", done[name]) if name in done else Stop(name, "ahead")

    return tuple(stop(name) for name in NAMES)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
