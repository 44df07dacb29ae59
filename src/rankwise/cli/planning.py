"""`rankwise plan`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from rankwise.cli.face import JobFile, Json, command
from rankwise.cli.printing import print_json, print_lines, print_paragraph, print_passage, print_priced, progress_bars
from rankwise.errors import UsageError
from rankwise.options import job_options

FROM_HELP = (
    "Another tool's configuration: a YAML or JSON file of Axolotl, LLaMA-Factory or TRL, or a shell script that starts "
    "a training. Its own options may follow after `--`."
)
TOOL_HELP = "Whose it is: axolotl, llama-factory, trl or args (a script around transformers' Trainer); found otherwise."


@command
@job_options
def plan(
    *,
    job: JobFile = None,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND LINE]", help="With --from or --tool: the arguments of the training."),
    ] = None,
    from_: Annotated[Path | None, typer.Option("--from", metavar="FILE", help=FROM_HELP)] = None,
    tool: Annotated[str | None, typer.Option(help=TOOL_HELP)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for plan.json and report.html.")] = None,
    as_json: Json = False,
    options: dict[str, Any],
) -> int:
    """The call: verdict, reasons with evidence, rejected options, flip points. Example: `rankwise plan job.yaml`"""
    from rankwise import api

    if from_ is not None or tool is not None:
        words_given = [*([str(job)] if job is not None else []), *(arguments or [])]
        return _bring(from_, words_given, tool, options, out, as_json)
    if arguments:
        raise UsageError(f"one job at a time: {job} and {arguments[0]} are given", fix="arguments go with --from")
    if job is None and not options:
        raise UsageError("nothing to plan", fix="give a job file, or options such as --model, --goal and --train")
    asked = api.load_job(job, options)
    with progress_bars(as_json) as progress:
        decided = api.plan_job(asked, out, progress)
    folder = api.write_plan(decided, out)
    if as_json:
        print_json(decided.contract())
    else:
        _print_plan(decided, folder)
    return 0 if decided.verdict.config else 3


def _print_plan(decided: Any, folder: Path) -> None:
    from rankwise.report import words

    print_paragraph(words.verdict_paragraph(decided))
    if decided.candidates:
        print_priced(words.price_table(decided))
    for passage in words.plan_lines(decided):
        print_passage(passage.title, passage.lines)
    print_lines(f"Plan: {folder / 'plan.json'}", f"Page: {folder / 'report.html'}")


def _bring(
    path: Path | None, arguments: list[str], tool: str | None, options: dict[str, Any], out: Path | None, as_json: bool
) -> int:
    """Another tool's configuration: does it fit, what it costs, what is risky, what we would change, our own call.

    Exit code 1: its model is not known here; 3: it does not fit, or nothing does."""
    from rankwise import api
    from rankwise.report import recipe_words as words

    brought = api.bring(path, options, arguments=arguments, tool=tool, out=out)
    folder = api.write_plan(brought.plan, out) if brought.plan else None
    if as_json:
        print_json(brought.contract())
    else:
        print_lines(words.recipe_title(brought.recipe), "")
        print_passage("As it is", words.given_lines(brought))
        print_passage("Assumed", [f"{line}." for line in brought.recipe.assumptions])
        print_passage("Risks", [words.risk_line(r) for r in brought.risks])
        print_passage("What we would change", [words.change_line(c) for c in brought.changes])
        print_passage("Questions", brought.questions)
        if brought.plan is not None and folder is not None:
            print_lines("Our own call", "")
            _print_plan(brought.plan, folder)
        else:
            print_lines(f"No call of our own: {brought.not_planned}.")
    if brought.unknown_model:
        return 1
    nothing = brought.plan is not None and brought.plan.verdict.config is None
    return 3 if brought.fits is False or nothing else 0
