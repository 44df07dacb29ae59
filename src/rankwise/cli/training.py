"""`rankwise train`"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from rankwise.cli.completing import to_train
from rankwise.cli.face import Json, command
from rankwise.cli.printing import notes, print_json, print_outcome, progress_bars
from rankwise.errors import UsageError
from rankwise.options import job_options


@command
@job_options
def train(
    *,
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="JOB|PLAN|RUN", help="A job file, a plan.json, or with --resume a run.", autocompletion=to_train
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder (default runs/<name>-<time>).")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run from its last checkpoint; begin it if there is none.")
    ] = False,
    as_json: Json = False,
    options: dict[str, Any],
) -> int:
    """Carry a plan out, with live progress. Example: `rankwise train job.yaml --out runs/first`"""
    from rankwise import api
    from rankwise.cli.live import show_live

    run = _run_to_train(target, out, resume, options)
    notes.print(f"run {escape(str(run.folder))}")
    show_live(run.name, run.plan(), api.train(run, resume=resume), api.memory_below)
    api.report(run)
    if as_json:
        print_json(api.show(run))
    else:
        print_outcome(run)
    return 0


def _run_to_train(target: Path | None, out: Path | None, resume: bool, options: dict[str, Any]) -> Any:
    from rankwise import api

    if not resume:
        if target is None:
            raise UsageError("nothing to train", fix="give a job file or a plan.json; --resume continues a run")
        with progress_bars(False) as bar:
            return api.prepare(target, out, options, bar)
    if options:
        raise UsageError(
            f"a run is resumed as it was planned; {', '.join(options)} cannot change", fix="start a new run"
        )
    if target is not None and target.is_file() and out is not None and not (out / "events.jsonl").is_file():
        return api.prepare(target, out, {})  # a machine that has not begun: from the start, or from train.save_url
    if target is not None and target.is_file():
        target = None if out else target.parent  # `train JOB --out RUN --resume`: the run is what counts
    folder = out or target
    return api.open_run(folder) if folder else api.latest_unfinished(Path("runs"))
