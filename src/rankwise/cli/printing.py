"""Lines, tables and JSON on standard output; notes and progress on standard error."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape

READABLE = 100  # characters of a line that a person reads
WIDE = 240  # characters of a line that goes to a file or a pipe, where nothing has to be wrapped
notes = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One document on standard output; a number that is not finite is an error."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def print_lines(*lines: str) -> None:
    """Plain text on standard output."""
    for line in lines:
        sys.stdout.write(line + "\n")


def print_passage(title: str, lines: Sequence[str]) -> None:
    """A title, its lines as a list and an empty line; nothing where there are no lines."""
    if lines:
        print_lines(title, *(_wrapped(line, "  - ", "    ") for line in lines), "")


def print_paragraph(sentences: Sequence[str]) -> None:
    """Sentences as one paragraph and an empty line."""
    print_lines(_wrapped(" ".join(sentences)), "")


def _wrapped(text: str, first: str = "", next_: str = "") -> str:
    """Broken at words on a terminal; one line where nobody's terminal would break it."""
    if not sys.stdout.isatty():
        return first + text
    import shutil
    import textwrap

    width = min(shutil.get_terminal_size().columns, READABLE)
    return textwrap.fill(
        text, width, initial_indent=first, subsequent_indent=next_, break_long_words=False, break_on_hyphens=False
    )


def print_table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """As wide as it needs to be where nobody's terminal would wrap it."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for number, head in enumerate(heads):
        table.add_column(head, no_wrap=number == 0)
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=WIDE)).print(table)


def print_priced(table: Any, *, width: int | None = None) -> None:
    """The options of a plan: intervals and columns are left out, the least important first, until a line fits.

    Args:
        table: rankwise.report's PriceTable.
        width: characters of a line; None: the terminal's, and at most READABLE.
    """
    console = Console(highlight=False)
    room = width or (min(console.width, READABLE) if console.is_terminal else READABLE)
    wide = Console(highlight=False, width=max(room, WIDE), color_system=None)
    columns = next(
        (c for c in table.narrower() if wide.measure(_of_columns(c, table.chosen)).maximum <= room), table.columns[:2]
    )
    console.width = room
    console.print(_of_columns(columns, table.chosen))
    print_lines(*(_wrapped(line) for line in (table.missing(columns), table.left_out) if line), "")


def _of_columns(columns: Sequence[Any], strong: int | None) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    for column in columns:
        table.add_column(escape(column.head), justify="right" if column.right else "left", no_wrap=True)
    for number, row in enumerate(zip(*(column.cells for column in columns), strict=True)):
        table.add_row(*map(escape, row), style="bold" if number == strong else None)
    return table


def cell(value: Any) -> str:
    """A value as a table shows it; None is unknown."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    return "unknown" if value is None else escape(str(value))


def print_outcome(run: Any) -> None:
    """What came of a run: losses, proof, predicted beside actual, findings, and where its files are."""
    from rankwise.report import words

    artifact = run.artifact()
    lines = words.outcome_lines(
        run.evidence(),
        artifact.verification if artifact else None,
        budget_nats=run.plan().job.forgetting.budget_nats,
        folder=run.folder,
    )
    print_lines(*lines)
    print_passage("Predicted and actual", [words.actual_line(a) for a in run.evidence().actuals])
    print_passage("Findings", [words.finding_line(f) for f in run.evidence().findings])
    if spectrum := run.evidence().spectrum:
        print_passage("Spectra", words.spectrum_lines(spectrum))
    if benchmarks := run.evidence().benchmarks:
        print_passage("Benchmarks", [words.benchmark_line(row) for row in words.benchmark_rows(benchmarks)])
    print_lines(f"Run: {run.folder}", f"Page: {run.report_path}")


def print_comparison(folder: Any) -> None:
    """What a comparison found, or how far it is: verdict, results, contrasts, budget, and where its page is."""
    from rankwise.report import compare_words as say

    bakeoff, trials = folder.bakeoff(), folder.trials()
    if not folder.outcome_path.is_file():
        print_lines(say.planned_line(bakeoff), say.stands_line(bakeoff, trials))
        print_table(*say.planned_table(bakeoff))
        return
    outcome = folder.outcome()
    print_paragraph(say.verdict_lines(outcome)[:1])
    print_passage("Side by side", say.verdict_lines(outcome)[1:])
    print_table(*say.scores_table(bakeoff, trials, outcome))
    print_table(*say.costs_table(bakeoff, trials, outcome))
    print_table(*say.contrasts_table(bakeoff, trials, outcome))
    print_passage("Notes", outcome.notes)
    print_lines(say.spent_line(bakeoff, outcome), f"Comparison: {folder.path}", f"Page: {folder.report_path}")


def print_actual(run: Any, quantity: str) -> None:
    """How long it was predicted to take, and how long it took, in one line."""
    from rankwise import api
    from rankwise.report import words

    if found := api.actual(run, quantity):
        print_lines(words.actual_line(found))


@contextmanager
def progress_bars(as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each piece of work on a terminal, one line when it is done elsewhere."""
    if not notes.is_terminal:

        def plain(what: str, done: int, total: int) -> None:
            if done == total:
                notes.print(f"  {what}: {done} of {total}")

        yield plain
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes) as bars:
        tasks: dict[str, Any] = {}

        def bar(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield bar
