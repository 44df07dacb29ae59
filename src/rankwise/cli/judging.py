"""`rankwise eval`, `merge` and `verify`"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from rankwise.cli.benchmarks import (
    Batch,
    Limit,
    Seed,
    Shots,
    Tasks,
    TasksPath,
    Template,
    names_of,
    require_tasks,
    run_benchmarks,
)
from rankwise.cli.face import Json, RunFolder, command
from rankwise.cli.printing import notes, print_actual, print_json, print_lines, print_passage, progress_bars


@command
def eval_(
    *,
    target: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run, or with --job any model.")],
    job: Annotated[Path | None, typer.Option(help="Job whose base, rows and probes a MODEL is judged on.")] = None,
    tasks: Tasks = None,
    tasks_path: TasksPath = None,
    limit: Limit = None,
    num_fewshot: Shots = None,
    batch_size: Batch = None,
    chat_template: Template = False,
    seed: Seed = None,
    as_json: Json = False,
) -> int:
    """Format, facts, held-out and general loss, against the untouched base. Example: `rankwise eval RUN`

    With --tasks those of lm-evaluation-harness instead. Example: `rankwise eval RUN --tasks arc_easy,mmlu`
    """
    from rankwise import api
    from rankwise.report import words

    how = {
        "folder": tasks_path,
        "limit": limit,
        "num_fewshot": num_fewshot,
        "batch_size": batch_size,
        "chat_template": chat_template or None,
        "seed": seed,
    }
    if tasks is not None:
        return run_benchmarks(target, job, as_json, tasks=names_of(tasks), **how)
    require_tasks([name for name, value in how.items() if value is not None])
    with progress_bars(as_json) as progress:
        if job is not None:
            asked = api.load_job(job, {})
            found = api.evaluate_model(target, asked, progress)
        else:
            run = api.open_run(Path(target))
            asked = run.plan().job
            found = api.evaluate(run, progress)
            api.report(run)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return 0
    print_lines(words.knows_or_sounds(found), words.forgetting_sentence(found, asked.forgetting.budget_nats), "")
    print_passage("Tuned against the untouched base", [words.comparison_line(c) for c in found.comparisons])
    print_passage("Not measured", list(found.notes))
    if job is None:
        print_actual(run, "evaluation_seconds")
    return 0


@command
def merge(
    *,
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="Folder of the merged model (default RUN/model).")] = None,
    as_json: Json = False,
) -> int:
    """Fold the adapter into its base and prove that nothing changed. Example: `rankwise merge RUN --out merged`"""
    from rankwise import api

    opened = api.open_run(run)
    folder = api.merge(opened, out)
    notes.print(f"merged into {escape(str(folder))}; comparing it with the adapter")
    outcome, artifact = api.verify(opened)
    api.report(opened)
    took = api.actual(opened, "merge_seconds")
    more = {"model": str(folder), "time": took.model_dump(mode="json") if took else None}
    code = _print_verification(opened, outcome, artifact, as_json, more)
    if not as_json:
        print_actual(opened, "merge_seconds")
    return code


@command
def verify(*, run: RunFolder, as_json: Json = False) -> int:
    """Prove the saved files; exit code 3 when a check fails. Example: `rankwise verify RUN`"""
    from rankwise import api

    opened = api.open_run(run)
    outcome, artifact = api.verify(opened)
    api.report(opened)
    return _print_verification(opened, outcome, artifact, as_json, {})


def _print_verification(run: Any, outcome: Any, artifact: Any, as_json: bool, more: dict[str, Any]) -> int:
    from rankwise.report import words

    if as_json:
        found = artifact.model_dump(mode="json", exclude={"verification"}) if artifact else None
        print_json({**more, "verification": outcome.model_dump(mode="json"), "artifact": found})
    else:
        print_lines(words.proof_sentence(outcome, run.folder), *(f"  - {words.check_line(c)}" for c in outcome.checks))
        print_lines(f"Artifact: {run.artifact_path}" if artifact else "No artifact was published.")
    return 0 if outcome.passed else 3
