"""Verbs that look at what was trained."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from rankwise import api
from rankwise.api.progress import Progress, quiet
from rankwise.errors import UsageError
from rankwise.python.jobs import AnyJob, AnyRun, job_of, run_of
from rankwise.records import (
    Evaluation,
    Gate,
    Job,
    Watching,
)
from rankwise.records.benchmark import Benchmarks
from rankwise.store import Run

Form = Literal["peft", "transformers", "gguf"]


def evaluate(
    run: AnyRun,
    *,
    job: AnyJob = None,
    against: AnyRun | None = None,
    metric: Sequence[str] = (),
    judge: str | None = None,
    judge_model: str | None = None,
    judge_key_env: str | None = None,
    rubric: str | Path | None = None,
    progress: Progress = quiet,
) -> Evaluation:
    """Does it know, or does it only sound so? Against the untouched base; kept in the run's evidence.

    Example: `rw.evaluate("runs/first").comparisons`

    Args:
        run: a run; with `job` any model: a folder, a hub id, `embedded`.
        job: the job whose base, rows and probes a model is judged on.
        against: another run in the base's place.
        metric: functions of your own as FILE.py:FUNCTION; the file is run.
        judge, judge_model, judge_key_env, rubric: another model that compares the answers, as `rankwise eval` has them.
        progress: told (what, done, total).

    Raises:
        RunError: not finished. ModelError, DataError: it cannot be read. UsageError: options that exclude each other.
    """
    judged_by = api.judge_of(judge, judge_model, judge_key_env, None if rubric is None else Path(rubric))
    asked = api.Asked(tuple(metric), judged_by)
    if job is not None:
        if against is not None or isinstance(run, Run):
            raise UsageError("with a job a model is judged, which is no run", fix="leave job or against away")
        return api.evaluate_model(str(run), job_of(job, {}), progress, asked)
    if against is not None:
        return api.evaluate_against(run_of(run), run_of(against), progress, asked)
    return api.evaluate(run_of(run), progress, asked)


def gates(found: Evaluation, require: Sequence[str]) -> list[Gate]:
    """Conditions held against an evaluation. Example: `all(g.met for g in rw.gates(found, ["facts>=0.6"]))`

    Args:
        found: an evaluation.
        require: conditions, as `rankwise eval --require` has them.

    Raises:
        UsageError: a condition that cannot be read, or names nothing that is measured.
    """
    return api.gates(api.requirements(require), found)


def benchmark(
    run: str | Path | Run,
    tasks: Sequence[str],
    *,
    job: AnyJob = None,
    tasks_path: str | Path | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int | None = None,
    apply_chat_template: bool = False,
    seed: int | None = None,
    progress: Progress = quiet,
) -> Benchmarks:
    """Tasks of lm-evaluation-harness, base beside tuned. Example: `rw.benchmark("runs/first", ["arc_easy"], limit=50)`

    Args:
        run: a run, or any model; with `job` beside the base that the job names.
        tasks: names of tasks or groups. tasks_path: folder with YAML files of more.
        limit: items of each task at most. num_fewshot: solved examples before each. seed: of those.
        batch_size: sequences in one forward pass. apply_chat_template: render prompts by the chat template.
        progress: told (what, done, total).

    Raises:
        BenchmarkError: the harness is not installed, or none of the tasks can be run. UsageError: no such task.
    """
    from rankwise.evaluate.harness_tasks import Asked

    said: dict[str, Any] = {"limit": limit, "num_fewshot": num_fewshot, "batch_size": batch_size, "seed": seed}
    said |= {"folder": None if tasks_path is None else Path(tasks_path), "chat_template": apply_chat_template or None}
    wanted = {name: value for name, value in said.items() if value is not None}
    asked = Asked(tasks=tuple(tasks), **wanted)
    if job is None and (isinstance(run, Run) or _is_run(run)):
        return api.benchmark(run_of(run), asked, progress)
    read: Job | None = None if job is None else job_of(job, {})
    return api.benchmark_model(str(run), asked, read, progress)


def _is_run(run: str | Path) -> bool:
    return any((folder / "plan.json").is_file() for folder in (Path(run), Path("runs") / run))


def watch(
    folder: AnyRun,
    *,
    base: str | None = None,
    data: str | Path | None = None,
    general: str | Path | None = None,
    forgetting: bool = False,
    adapter_only: bool = False,
    truncate: bool = False,
    page: str | Path | None = None,
    progress: Progress = quiet,
) -> Watching:
    """Spectra, findings and forgetting of a run, ours or another tool's.

    Example: `rw.watch("outputs", base="embedded").findings`

    Args:
        folder: a run, output of transformers' Trainer, an adapter of PEFT, or a whole model.
        base: hub id or folder; None: what the run or the adapter names.
        data: rows of the task for the held-out loss. general: everyday rows for `forgetting`.
        forgetting: ask base and tuned model general texts and questions. adapter_only: leave the base alone.
        truncate: how much of the gain is left at ranks 1, 2, 4, ...
        page: also an HTML page.
        progress: told (what, done, total).

    Raises:
        RunError: there is nothing of that name. UsageError: the base is needed and not known. ModelError: unreadable.
    """
    found = api.watch(
        api.watched_folder(folder.folder if isinstance(folder, Run) else Path(folder)),
        base=base,
        data=None if data is None else Path(data),
        general=None if general is None else Path(general),
        forgetting=forgetting,
        adapter_only=adapter_only,
        truncate=truncate,
        progress=progress,
    )
    if page is not None:
        api.write_watching(found, Path(page))
    return found


def chat(run: AnyRun, *, base: bool = False) -> Callable[[list[dict[str, str]], int], Iterator[str]]:
    """A run's model as a function: (messages, most new tokens) -> pieces of the answer.

    Example: `"".join(rw.chat("runs/first")([{"role": "user", "content": "Hello"}], 64))`

    Args:
        base: talk to the untouched base instead.

    Raises:
        RunError: not finished. ModelError: its base is not here.
    """
    return api.chat(run_of(run), base=base)
