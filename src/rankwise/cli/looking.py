"""`rankwise report`, `show` and `runs`"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rankwise.cli.completing import compared_or_run
from rankwise.cli.face import Json, command
from rankwise.cli.printing import (
    cell,
    print_comparison,
    print_json,
    print_lines,
    print_outcome,
    print_passage,
    print_table,
)

Looked = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A run or a comparison: its folder, or its name below runs/ or comparisons/.",
        autocompletion=compared_or_run,
    ),
]


@command
def report(*, run: Looked, as_json: Json = False) -> int:
    """Write the page of a run or a comparison: one self-contained HTML file. Example: `rankwise report RUN`"""
    from rankwise import api

    if compared := api.find_comparison(run):
        return _report_comparison(compared, as_json)
    opened = api.open_run(run)
    path = api.report(opened)
    if as_json:
        print_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        if opened.evidence_path.is_file() and (found := opened.evidence().evaluation):
            _print_answers(found)
        print_lines(f"Page: {path.resolve()}")
    return 0


def _report_comparison(folder: Any, as_json: bool) -> int:
    from rankwise import api

    path = api.report_comparison(folder)
    if as_json:
        print_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        print_lines(f"Page: {path.resolve()}")
    return 0


def _show_comparison(folder: Any, as_json: bool) -> int:
    from rankwise import api

    if as_json:
        print_json(api.show_comparison(folder))
    else:
        print_comparison(folder)
    return 0


def _print_answers(found: Any) -> None:
    """Three answers before and after, the ones that changed first."""
    changed = sorted(found.answers, key=lambda a: (a.base_ok == a.tuned_ok, a.kind != "format"))
    for shown in changed[:3]:
        mark = {True: "ok", False: "not ok"}
        print_lines(
            f"asked:  {shown.prompt}",
            f"before: {_one_line(shown.base)}  ({mark[shown.base_ok]})",
            f"after:  {_one_line(shown.tuned)}  ({mark[shown.tuned_ok]})",
            "",
        )


def _one_line(text: str, most: int = 200) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


@command
def show(*, run: Looked, as_json: Json = False) -> int:
    """Verdict, losses, verification and artifact of one run, or what a comparison found. Example: `rankwise show RUN
    --json`
    """
    from rankwise import api
    from rankwise.report import words

    if compared := api.find_comparison(run):
        return _show_comparison(compared, as_json)
    opened = api.open_run(run)
    if as_json:
        print_json(api.show(opened))
        return 0
    decided, state, events = opened.plan(), opened.state(), opened.events()
    step = max((getattr(e, "step", 0) for e in events), default=0)
    total = decided.verdict.config.max_steps if decided.verdict.config else None
    if found := opened.evidence().evaluation if opened.evidence_path.is_file() else None:
        print_lines(words.knows_or_sounds(found), "")
    print_lines(*words.ancestry(decided.facts.parent))
    print_lines(words.verdict_sentence(decided), words.state_sentence(state, step, total, opened.folder), "")
    if opened.evidence_path.is_file():
        print_outcome(opened)
    return 0


@command
def runs(
    *,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where runs are kept.")] = Path("runs"),
    as_json: Json = False,
) -> int:
    """The runs and the comparisons of this folder. Example: `rankwise runs`"""
    from rankwise import api

    found = api.runs(folder)
    compared = api.list_comparisons(folder) + (api.list_comparisons() if folder == Path("runs") else [])
    if as_json:
        print_json(found + compared)
        return 0
    if not found and not compared:
        print_lines(f"No runs in {folder}/ yet. `rankwise train JOB` makes one.")
    if found:
        _print_runs(found)
    if compared:
        _print_comparisons(compared)
    return 0


def _print_runs(found: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    columns = ("run", "state", "method", "steps", "base_validation_loss", "best_validation_loss", "proven")
    heads = ("run", "state", "method", "steps", "base loss [nats]", "best loss [nats]", "proven")
    table = Table(*heads, box=box.SIMPLE)
    for line in found:
        table.add_row(*(cell(line.get(column)) for column in columns))
    Console(highlight=False).print(table)


def _print_comparisons(found: list[dict[str, Any]]) -> None:
    rows = []
    for line in found:
        runs = f"{line['runs']} of {line['planned_runs']}" if "runs" in line else None
        rows.append((line["comparison"], line["state"], runs, ", ".join(line.get("arms", ()))))
    print_table(("comparison", "state", "training runs", "arms"), rows)
    print_passage("Damaged", [line["what"] for line in found if "what" in line])
