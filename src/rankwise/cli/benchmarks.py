"""`rankwise eval --tasks`: its options, and what it prints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from rankwise.cli.printing import notes, print_json, print_lines, print_passage, print_table, progress_bars
from rankwise.errors import UsageError
from rankwise.store import Run

PANEL = "Tasks of lm-evaluation-harness"
Tasks = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Tasks or groups with commas: arc_easy,mmlu.", rich_help_panel=PANEL),
]
TasksPath = Annotated[
    Path | None, typer.Option(help="Folder with YAML files of more tasks.", rich_help_panel=PANEL, metavar="DIR")
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Items of each task at most. Default: all.", rich_help_panel=PANEL)
]
Shots = Annotated[
    int | None,
    typer.Option(min=0, help="Solved examples before each item. Default: as the task says.", rich_help_panel=PANEL),
]
Batch = Annotated[
    int | None, typer.Option(min=1, help="Sequences in one forward pass. Default: 1.", rich_help_panel=PANEL)
]
Template = Annotated[
    bool, typer.Option("--apply-chat-template", help="Render prompts by the chat template.", rich_help_panel=PANEL)
]
Seed = Annotated[int | None, typer.Option(min=0, help="Of few-shot examples. Default: 1234.", rich_help_panel=PANEL)]
FLAGS = {"folder": "--tasks-path", "chat_template": "--apply-chat-template"}
HEADS = ("task", "metric", "shots", "items", "base", "tuned", "difference (95 %)", "tuned is")
ALONE = ("task", "metric", "shots", "items", "model")


def run_benchmarks(target: str, job: Path | None, as_json: bool, **asked: Any) -> int:
    """Exit code 1 where a task could not be run; the results of the others are printed and kept."""
    from rankwise import api
    from rankwise.evaluate.harness_tasks import Asked

    wanted = Asked(**{name: value for name, value in asked.items() if value is not None})
    with progress_bars(as_json) as progress:
        if job is None and (run := _run_of(target)):
            found = api.benchmark(run, wanted, progress)
            api.report(run)
        else:
            found = api.benchmark_model(target, wanted, api.load_job(job, {}) if job else None, progress)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _print(found)
    return 1 if found.failures else 0


def names_of(tasks: str) -> tuple[str, ...]:
    """Names with commas between them, each once. Raises UsageError where there is none."""
    names = tuple(dict.fromkeys(name.strip() for name in tasks.split(",") if name.strip()))
    if not names:
        raise UsageError("--tasks names no task", fix="give names with commas between them: --tasks arc_easy,mmlu")
    return names


def require_tasks(given: Sequence[str]) -> None:
    """Raises UsageError for options that say how tasks are run, where none is named."""
    if given:
        flags = [FLAGS.get(name, f"--{name.replace('_', '-')}") for name in given]
        raise UsageError(f"{', '.join(flags)} without --tasks", fix="name the tasks: --tasks arc_easy,mmlu")


def _run_of(target: str) -> Run | None:
    """The run of that folder or name; None where it is none, and so a model."""
    places = (Path(target), Path("runs") / target)
    return next((Run(folder) for folder in places if (folder / "plan.json").is_file()), None)


def _print(found: Any) -> None:
    from rankwise.report import words

    rows = words.benchmark_rows(found)
    if any(row.base for row in rows):
        print_table(HEADS, [_compared(row) for row in rows])
    else:
        print_table(ALONE, [(r.task, r.metric, r.shots, r.items, _with(r.tuned, r.tuned_error)) for r in rows])
    print_lines(words.benchmark_source(found))
    print_passage("Warnings of the harness", list(found.notes))
    for failed in found.failures:
        notes.print(f"[bold red]error:[/] {escape(words.failure_line(failed))}")


def _compared(row: Any) -> tuple[str, ...]:
    return (
        row.task,
        row.metric,
        row.shots,
        row.items,
        _with(row.base, row.base_error),
        _with(row.tuned, row.tuned_error),
        f"{row.difference} ({row.bounds})",
        row.answer,
    )


def _with(value: str, error: str) -> str:
    return f"{value} {error}".strip()
