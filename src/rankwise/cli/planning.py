"""`rankwise plan`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from rankwise.cli.face import Json, command
from rankwise.cli.printing import print_json, print_lines, print_passage
from rankwise.errors import UsageError
from rankwise.options import job_options


@command
@job_options
def plan(
    *,
    job: Annotated[Path | None, typer.Argument(metavar="JOB", help="A job file (YAML).")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for plan.json and report.html.")] = None,
    as_json: Json = False,
    options: dict[str, Any],
) -> int:
    """The call: verdict, reasons with evidence, rejected options, flip points. Example: `rankwise plan job.yaml`"""
    from rankwise import api
    from rankwise.report import words

    if job is None and not options:
        raise UsageError("nothing to plan", fix="give a job file, or options such as --model, --goal and --train")
    decided = api.plan_job(api.load_job(job, options), out)
    folder = api.write_plan(decided, out)
    if as_json:
        print_json(decided.contract())
    else:
        print_lines(words.verdict_sentence(decided), "")
        for passage in words.plan_lines(decided):
            print_passage(passage.title, passage.lines)
        print_lines(f"Plan: {folder / 'plan.json'}", f"Page: {folder / 'report.html'}")
    return 0 if decided.verdict.config else 3
