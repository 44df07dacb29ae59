"""`rankwise estimate`"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from rankwise.cli.face import Json, command
from rankwise.cli.printing import WIDE, print_json, print_lines, print_passage, print_table, progress_bars
from rankwise.errors import RankwiseError, UsageError
from rankwise.options import estimate_options


@command
@estimate_options
def estimate(
    *,
    batch_file: Annotated[
        Path | None,
        typer.Option(
            help="Price a YAML or JSON list of mappings: option names with underscores, and a free `id`. Options on "
            "the command line hold for every entry that does not say otherwise."
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="First run 20 real steps of it on this machine; later estimates for this device are corrected by what "
            "they took.",
        ),
    ] = False,
    as_json: Json = False,
    options: dict[str, Any],
) -> int:
    """One configuration priced before any GPU is rented. Example: `rankwise estimate --model llama-3-8b --gpu L4`

    Exit code 3: it does not fit into the GPU that was named. A batch file exits with 0 once it was read; what is wrong
    with an entry stands in its place in the list.
    """
    from rankwise import api

    if batch_file is not None:
        if calibrate:
            raise UsageError(
                "--calibrate runs one configuration, and --batch-file names many", fix="give one of the two"
            )
        return _estimate_batch(batch_file, options, as_json)
    asked = api.configuration(options)
    if calibrate:
        asked = _calibrate(asked, as_json)
    found = api.price_asked(asked)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _print_estimate(asked, found)
    return 3 if found.memory.fits is False and asked.gpu is not None else 0


def _calibrate(asked: Any, as_json: bool) -> Any:
    """Measured beside predicted as a table, or as notes of the JSON estimate."""
    from rankwise import api
    from rankwise.report import calibration_words as words

    with progress_bars(as_json) as progress:
        found = api.calibrate(asked, progress)
    if as_json:
        lines = (words.timing_line(t) for t in found.timings)
        return asked.model_copy(update={"notes": (*asked.notes, *lines, words.kept_sentence(found), *found.notes)})
    print_table(words.HEADS, [words.timing_row(t) for t in found.timings])
    print_lines(words.kept_sentence(found))
    print_passage("Not timed", found.notes)
    return asked


def _print_estimate(asked: Any, found: Any) -> None:
    """The peak as bars; where it does not fit, the single changes that would help."""
    from rich.table import Table

    from rankwise import api
    from rankwise.report import estimate_words as words
    from rankwise.report.bill_words import bill

    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=WIDE)
    print_lines(words.title(asked, found), "")
    peak = Table(box=None, show_header=False, pad_edge=False)
    peak.add_column(style="bold")
    peak.add_column(justify="right")
    peak.add_column(style="cyan")
    for row in words.memory_rows(found):
        peak.add_row(row.name, row.bytes, escape(row.beside), style=None if row.is_part else "default")
    console.print(peak)
    print_lines("", *words.estimate_lines(found), "")
    costs = Table(box=None, show_header=False, pad_edge=False)
    costs.add_column(style="bold", no_wrap=True)
    costs.add_column()
    for heading, text in bill(found, asked.costs):
        costs.add_row(heading, escape(text))
    console.print(costs)
    print_lines("")
    print_passage("Notes", found.notes)
    if found.memory.fits is not False:
        return
    with progress_bars(False) as progress:
        changes = api.single_changes(asked, found, progress)
    table = Table("one change", "peak on the device", "against now", "", box=None, pad_edge=False)
    for change in changes:
        table.add_row(*words.change_row(change.words, change.estimate, found))
    if changes:
        console.print(table)
    else:
        print_lines("No single change makes it fit, or the peak 3 % smaller.")


def _estimate_batch(path: Path, options: dict[str, Any], as_json: bool) -> int:
    """A list in the file's order. Without --json the same list: a batch is read by programs."""
    from rankwise import api

    entries = [{**options, **entry} for entry in api.read_batch(path)]
    answers = []
    with progress_bars(as_json) as progress:
        for label, outcome in api.estimate_batch(entries, progress):
            if isinstance(outcome, RankwiseError):
                answers.append({"id": label, "error": outcome.to_json()})
            else:
                answers.append(outcome.model_dump(mode="json"))
    print_json(answers)
    return 0
