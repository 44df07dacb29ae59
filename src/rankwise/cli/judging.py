"""`rankwise eval` and `verify`"""

from collections.abc import Sequence
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
from rankwise.cli.completing import job_files, run_folders, runs_or_models
from rankwise.cli.face import Json, RunFolder, command
from rankwise.cli.printing import notes, print_actual, print_json, print_lines, print_passage, progress_bars
from rankwise.errors import UsageError

JUDGE = "Another model as judge"  # heading in --help


@command
def eval_(
    *,
    target: Annotated[
        str,
        typer.Argument(metavar="RUN|MODEL", help="A run, or with --job any model.", autocompletion=runs_or_models),
    ],
    job: Annotated[
        Path | None,
        typer.Option(help="Job whose base, rows and probes a MODEL is judged on.", autocompletion=job_files),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Another run in the base's place.", autocompletion=run_folders)
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE.py:FUNCTION", help="Your own metric; the file is run. May be given again."),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="URL", help="An OpenAI-compatible API, up to /v1.", rich_help_panel=JUDGE)
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="The model that judges there.", rich_help_panel=JUDGE)] = None,
    judge_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE", help="Environment variable with its key.", show_default=False, rich_help_panel=JUDGE
        ),
    ] = None,
    rubric: Annotated[
        Path | None, typer.Option(help="A text file: what makes an answer better.", rich_help_panel=JUDGE)
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help="Such as 'facts>=0.6' or 'facts.difference>0'; exit code 3 if not met."),
    ] = None,
    tasks: Tasks = None,
    tasks_path: TasksPath = None,
    limit: Limit = None,
    num_fewshot: Shots = None,
    batch_size: Batch = None,
    chat_template: Template = False,
    seed: Seed = None,
    as_json: Json = False,
) -> int:
    """Does it know, or does it only sound so? Against the untouched base. Example: `rankwise eval RUN`

    With --tasks those of lm-evaluation-harness instead. Example: `rankwise eval RUN --tasks arc_easy,mmlu`
    """
    from rankwise import api

    how = {
        "folder": tasks_path,
        "limit": limit,
        "num_fewshot": num_fewshot,
        "batch_size": batch_size,
        "chat_template": chat_template or None,
        "seed": seed,
    }
    ours = {"--against": against, "--metric": metric, "--judge": judge, "--require": require}
    if tasks is not None:
        _refuse_beside_tasks([name for name, value in ours.items() if value])
        return run_benchmarks(target, job, as_json, tasks=names_of(tasks), **how)
    require_tasks([name for name, value in how.items() if value is not None])
    asked = api.Asked(tuple(metric or ()), api.judge_of(judge, judge_model, judge_key_env, rubric))
    return _evaluate(target, job, against, asked, require or (), as_json)


def _refuse_beside_tasks(given: Sequence[str]) -> None:
    if given:
        raise UsageError(
            f"--tasks asks lm-evaluation-harness, and {', '.join(given)} is about our own questions",
            fix="give two commands",
        )


def _evaluate(
    target: str, job: Path | None, against: Path | None, asked: Any, require: Sequence[str], as_json: bool
) -> int:
    from rankwise import api

    run = None if job is not None else api.open_run(Path(target))
    read = api.load_job(job, {}) if run is None else run.plan().job
    required = api.requirements(require, (*read.eval.metrics, *asked.metrics))
    if against is not None and run is None:
        raise UsageError("--against compares two runs, and with --job a MODEL is judged that is none")
    with progress_bars(as_json) as progress:
        if run is None:
            found = api.evaluate_model(target, read, progress, asked)
        elif against is not None:
            found = api.evaluate_against(run, api.open_run(against), progress, asked)
        else:
            found = api.evaluate(run, progress, asked)
        if run is not None:
            api.report(run)
    return _print_evaluation(found, api.gates(required, found), read, run, as_json)


def _print_evaluation(found: Any, gates: Any, job: Any, run: Any, as_json: bool) -> int:
    from rankwise.report import words

    code = 0 if all(g.met for g in gates) else 3
    if as_json:
        said = {"verdict": words.knows_or_sounds(found), **found.model_dump(mode="json")}
        print_json({**said, "gates": [g.model_dump(mode="json") for g in gates]})
    else:
        more = (words.kept_sentence(found), words.confident_sentence(found))
        forgot = None if found.against else words.forgetting_sentence(found, job.forgetting.budget_nats)
        print_lines(words.knows_or_sounds(found), *(s for s in (*more, forgot) if s), "")
        for title, lines in words.evaluation_passages(found):
            print_passage(title, lines)
        if run is not None and found.against is None:
            print_actual(run, "evaluation_seconds")
        print_passage("Required", [words.gate_line(g) for g in gates])
    for missed in (g for g in gates if not g.met):
        notes.print(f"[bold yellow]answer:[/] {escape(words.gate_line(missed))}")
    return code


@command
def verify(*, run: RunFolder, as_json: Json = False) -> int:
    """Prove the saved files; exit code 3 when a check fails. Example: `rankwise verify RUN`"""
    from rankwise import api

    opened = api.open_run(run)
    outcome, artifact = api.verify(opened)
    api.report(opened)
    return print_verification(opened, outcome, artifact, as_json, {})


def print_verification(run: Any, outcome: Any, artifact: Any, as_json: bool, more: dict[str, Any]) -> int:
    from rankwise.report import words

    if as_json:
        found = artifact.model_dump(mode="json", exclude={"verification"}) if artifact else None
        print_json({**more, "verification": outcome.model_dump(mode="json"), "artifact": found})
    else:
        print_lines(words.proof_sentence(outcome, run.folder), *(f"  - {words.check_line(c)}" for c in outcome.checks))
        print_lines(f"Artifact: {run.artifact_path}" if artifact else "No artifact was published.")
    return 0 if outcome.passed else 3
