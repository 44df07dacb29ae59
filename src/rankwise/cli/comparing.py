"""`rankwise compare`"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from rankwise.cli.completing import job_files
from rankwise.cli.face import Json, command
from rankwise.cli.printing import (
    notes,
    print_comparison,
    print_json,
    print_lines,
    print_passage,
    print_table,
    progress_bars,
)
from rankwise.errors import Interrupted, UsageError

BUDGET = "Budget: one of the three"  # heading in --help


@command
def compare(
    *,
    job: Annotated[Path, typer.Argument(metavar="JOB", help="A job file.", autocompletion=job_files)],
    methods: Annotated[
        str,
        typer.Option(
            help="Arms with commas: base, fewshot, retrieval, or METHOD:OPTION=VALUE such as lora:r=8; NAME=METHOD "
            "gives an arm a name."
        ),
    ],
    budget_flops: Annotated[
        float | None, typer.Option(metavar="F", help="Of the whole comparison, in FLOPs.", rich_help_panel=BUDGET)
    ] = None,
    budget_minutes: Annotated[
        float | None,
        typer.Option(metavar="M", help="Of the whole comparison, in minutes of wall clock.", rich_help_panel=BUDGET),
    ] = None,
    budget_cost: Annotated[
        float | None,
        typer.Option(
            metavar="USD", help="Of the whole comparison, at the price of the job's device.", rich_help_panel=BUDGET
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Final runs of each trained arm.")] = 3,
    lr_sweep: Annotated[int, typer.Option(min=1, metavar="K", help="Learning rates that each trained arm tries.")] = 3,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder (default comparisons/<name>-<time>); one that was begun is gone on with."),
    ] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Work on a Ray cluster that sees this folder.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan it, print the plan, and stop.")] = False,
    as_json: Json = False,
) -> int:
    """The fair bake-off: methods on your data at equal cost. Example: `rankwise compare job.yaml --methods
    base,fewshot,lora:r=8,full --budget-minutes 30 --seeds 3`
    """
    from rankwise import api
    from rankwise.report import compare_words

    unit, budget = _budget(budget_flops, budget_minutes, budget_cost)
    wanted = api.Wanted(methods, unit, budget, seeds, lr_sweep, ray)
    with progress_bars(as_json) as progress:
        folder = api.prepare_comparison(job, wanted, out, progress=progress)
    bakeoff = folder.bakeoff()
    if not as_json:
        print_lines(compare_words.planned_line(bakeoff))
        print_table(*compare_words.planned_table(bakeoff))
        print_passage("It can tell", [compare_words.detectable_line(d) for d in bakeoff.detectable])
        print_passage("Notes", bakeoff.notes)
    if dry_run:
        if as_json:
            print_json(bakeoff.model_dump(mode="json"))
        else:
            print_lines(f"Plan: {folder.bakeoff_path}")
        return 0
    notes.print(f"comparison {escape(str(folder.path))}")
    try:
        with _told() as tell, closing(api.carry_out_comparison(folder, ray)) as work:
            for ahead in work:
                tell(ahead)
    except KeyboardInterrupt:  # while a line was drawn
        raise Interrupted("stopped by Ctrl-C", fix=api.how_to_go_on(folder)) from None
    outcome = api.conclude_comparison(folder)
    if as_json:
        print_json(outcome.model_dump(mode="json"))
    else:
        print_comparison(folder)
    return 0


def _budget(flops: float | None, minutes: float | None, usd: float | None) -> tuple[Any, float]:
    """(unit, amount). Raises UsageError unless exactly one is given."""
    said = {"flops": flops, "minutes": minutes, "usd": usd}
    given = [(unit, amount) for unit, amount in said.items() if amount is not None]
    if len(given) != 1:
        raise UsageError(
            f"{len(given)} budgets are given",
            expected="exactly one of --budget-flops, --budget-minutes, --budget-cost",
        )
    if not 0 < given[0][1] < float("inf"):
        raise UsageError(f"the budget is {given[0][1]:g}", expected="a number above 0")
    return given[0]


def _ahead_line(ahead: Any) -> str:
    """What is being done, and how long it will still take."""
    from rankwise.report.quantities import duration

    part = f": {ahead.done} of {ahead.total}" if ahead.total else ""
    left = f", about {duration(ahead.seconds_left)} left" if ahead.seconds_left is not None else ""
    return f"{ahead.what}{part}{left}"


@contextmanager
def _told() -> Iterator[Any]:
    """One line that is drawn anew on a terminal; elsewhere a line for each new piece of work."""
    if notes.is_terminal:
        with notes.status("starting") as status:
            yield lambda ahead: status.update(escape(_ahead_line(ahead)))
        return
    last = ""

    def plain(ahead: Any) -> None:
        nonlocal last
        if ahead.what != last:
            notes.print(escape(_ahead_line(ahead)))
        last = ahead.what

    yield plain
