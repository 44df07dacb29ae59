"""The command line: arguments -> api -> lines. No decisions.

Results go to standard output, progress and errors to standard error; with --json there is one JSON document on
standard output and nothing else. Exit codes: 0 done, 1 refused or failed, 2 usage, 3 it ran and the answer is no."""

import typer

from rankwise.cli.catalogue import gpus, models
from rankwise.cli.chatting import chat
from rankwise.cli.checking import check
from rankwise.cli.comparing import compare
from rankwise.cli.diagnosing import diagnose
from rankwise.cli.doctoring import doctor
from rankwise.cli.estimating import estimate
from rankwise.cli.exporting import export
from rankwise.cli.face import Commands
from rankwise.cli.judging import eval_, verify
from rankwise.cli.launching import launch
from rankwise.cli.lesson import tables
from rankwise.cli.looking import report, runs, show
from rankwise.cli.merging import merge
from rankwise.cli.planning import plan
from rankwise.cli.serving import serve
from rankwise.cli.tenants import tenants
from rankwise.cli.training import train
from rankwise.cli.ui import ui
from rankwise.cli.watching import watch

__all__ = ["app", "main"]

app = typer.Typer(
    name="rankwise",
    cls=Commands,
    help="Full fine-tuning, LoRA, QLoRA, or none at all? A computed answer, a guarded run, a proven artifact.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

# In the order of `rankwise --help`.
for verb in (
    plan,
    estimate,
    diagnose,
    check,
    train,
    launch,
    compare,
    eval_,
    watch,
    merge,
    verify,
    export,
    chat,
    serve,
    report,
    show,
    runs,
    ui,
    models,
    gpus,
    tables,
    doctor,
):
    app.command(name=verb.__name__.rstrip("_"))(verb)
app.add_typer(tenants, name="tenants")


@app.callback(invoke_without_command=False)
def _root() -> None:
    pass


def main() -> None:
    """The `rankwise` command."""
    app()
