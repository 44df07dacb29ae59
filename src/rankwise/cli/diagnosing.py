"""`rankwise diagnose`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from rankwise.cli.face import JobFile, Json, command
from rankwise.cli.printing import print_json, print_lines, print_passage, print_table, progress_bars
from rankwise.errors import UsageError
from rankwise.options import job_options

FEWEST, MOST = 6, 64


@command
@job_options
def diagnose(
    *,
    job: JobFile = None,
    rows: Annotated[
        int,
        typer.Option(min=FEWEST, help=f"Held-out rows that are asked at most. Default: {MOST}.", show_default=False),
    ] = MOST,
    out: Annotated[
        Path | None, typer.Option(help="Folder for diagnosis.json and diagnosis.html. Default: none.")
    ] = None,
    as_json: Json = False,
    options: dict[str, Any],
) -> int:
    """Style or knowledge? The untouched base is asked before anything trains. Example: `rankwise diagnose job.yaml`

    Zero-shot, after 1, 4 and 8 examples, and with the answer's source, on held-out rows and closed-book probes. One to
    five minutes with the embedded model; what was found is remembered.
    """
    from rankwise import api

    if job is None and not options:
        raise UsageError("nothing to diagnose", fix="give a job file, or options such as --model and --train")
    asked = api.load_job(job, options if job else {"goal": "unsure"} | options)
    with progress_bars(as_json) as progress:
        found = api.diagnose(asked, progress, rows)
    page = api.write_diagnosis(found, asked, out) if out else None
    if as_json:
        print_json(found.model_dump(mode="json"))
        return 0
    _print_diagnosis(found)
    if page:
        print_lines(f"Page: {page}")
    return 0


def _print_diagnosis(found: Any) -> None:
    from rankwise.report import diagnosis_words as words

    print_lines(words.conclusion_sentence(found), words.basis_line(found))
    print_table(words.heads(found), words.rows(found))
    for passage in words.passages(found):
        print_passage(passage.title, passage.lines)
