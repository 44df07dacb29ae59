"""What every command has: --json, --debug, and errors as one message with an exit code."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup
from typer.exceptions import TyperException

from rankwise.cli.completing import job_files, run_folders
from rankwise.cli.printing import notes, print_json
from rankwise.errors import AnswerIsNo, Interrupted, RankwiseError, UsageError
from rankwise.options import sign

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
DEBUG_VARIABLE = "RANKWISE_DEBUG"
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", envvar=DEBUG_VARIABLE)]
PRICES_HELP = (
    "Your own prices: TOML, YAML or JSON with currency, date, gpus: {A100-80GB: {on_demand: 1.79, spot: 0.9}}, and if "
    "you like electricity_usd_per_kwh and storage_usd_per_gb_month. Another currency needs usd_per_unit, what one unit "
    "is worth in USD. A GPU that the file names has the file's price alone; the others keep ours, as the source says."
)
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder, or its name below runs/.", autocompletion=run_folders)
]
JobFile = Annotated[Path | None, typer.Argument(metavar="JOB", help="A job file (YAML).", autocompletion=job_files)]


class Commands(TyperGroup):
    """The group of commands; under --json a call that cannot be parsed is told in JSON, too."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        given = sys.argv[1:] if args is None else list(args)
        debug = "--debug" in given or bool(os.environ.get(DEBUG_VARIABLE))
        if "--json" not in given:
            return self._main(debug, args, *more, **extra)
        try:
            sys.exit(super().main(args, *more, **{**extra, "standalone_mode": False}))
        except TyperException as error:
            what = getattr(error, "format_message", error.__str__)()
            sys.exit(say_error(UsageError(what, fix="`rankwise COMMAND --help` lists the options"), as_json=True))

    def _main(self, debug: bool, *arguments: Any, **extra: Any) -> Any:
        """What goes wrong outside of a command, such as a help text that cannot be written, is one message, too."""
        try:
            return super().main(*arguments, **extra)
        except Exception as error:
            if debug or not extra.get("standalone_mode", True):
                raise
            sys.exit(say_error(_internal(error), as_json=False))


def command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --debug; its errors become one message and an exit code, what it returns the exit code."""

    @functools.wraps(function)
    def face(**arguments: Any) -> None:
        debug = arguments.pop("debug")
        raise typer.Exit(carried_out(lambda: function(**arguments), arguments["as_json"], debug))

    debug = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    sign(face, [*inspect.signature(function).parameters.values(), debug])
    return face


def carried_out(work: Callable[[], int | None], as_json: bool, debug: bool) -> int:
    """Do it; returns the exit code. Whatever goes wrong becomes one message, unless a traceback is asked for."""
    try:
        code = work() or 0
        sys.stdout.flush()  # here, where a reader that has gone is no fault, and not at the interpreter's end
        return code
    except RankwiseError as error:
        if debug:
            raise
        return say_error(error, as_json)
    except KeyboardInterrupt:
        return say_error(Interrupted("stopped by Ctrl-C"), as_json)
    except BrokenPipeError:  # the reader of our output has gone (`| head`); there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        return say_error(_internal(error), as_json)


def _internal(error: Exception) -> RankwiseError:
    """A fault of ours, or of the machine where the system says so: a file that may not be read, a full disk."""
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        return RankwiseError(f"{where}{error.strerror}", fix="--debug shows where it was met")
    return RankwiseError(
        f"internal error: {type(error).__name__}: {error}", fix="--debug shows where; please report it"
    )


def say_error(error: RankwiseError, as_json: bool) -> int:
    """One message on standard error, under --json a document, too; returns the exit code."""
    if as_json:
        print_json({"error": error.to_json()})
    colour = "yellow" if isinstance(error, AnswerIsNo | Interrupted) else "red"
    word = "answer" if isinstance(error, AnswerIsNo) else "stopped" if isinstance(error, Interrupted) else "error"
    notes.print(f"[bold {colour}]{word}:[/] {escape(str(error))}")
    return error.exit_code
