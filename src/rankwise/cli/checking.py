"""`rankwise check`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from rankwise.cli.face import Json, command
from rankwise.cli.printing import print_json, print_lines, print_passage, progress_bars
from rankwise.options import job_options

FAULTS = 3


@command
@job_options
def check(
    *,
    target: Annotated[Path, typer.Argument(metavar="DATA", help="Rows to train on, or a job file that names them.")],
    near: Annotated[
        bool, typer.Option("--near/--no-near", help="Look for near duplicates (about a millisecond a row).")
    ] = True,
    show: Annotated[int, typer.Option(min=0, help="Rows to print as the model sees them.")] = 2,
    as_json: Json = False,
    options: dict[str, Any],
) -> int:
    """Look at the data before anything trains on it. Example: `rankwise check train.jsonl --model embedded`

    Labels, end and begin tokens, length, duplicates, overlap with held-out rows and probes, and the template's round
    trip, with the lines of the file. Exit code 3 where training would go wrong; `rankwise train` looks, too, and
    refuses.
    """
    from rankwise import api

    with progress_bars(as_json) as progress:
        found = api.check(target, options, progress, near=near, show=show)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _print_audit(found)
    return FAULTS if found.faults else 0


def _print_audit(found: Any) -> None:
    from rankwise.report import audit_words as words

    print_lines(words.verdict_sentence(found), "")
    print_lines(*words.counted_lines(found), "")
    print_passage("Findings", words.finding_lines(found.findings))
    print_lines("Rows by length", *words.histogram_lines(found), "")
    for view in found.views:
        print_lines(*words.view_lines(view))
    print_lines(words.checked_line(found))
