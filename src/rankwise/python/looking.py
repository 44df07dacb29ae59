"""What is known of runs and comparisons, from their folders alone."""

from pathlib import Path
from typing import Any, Literal

from rankwise import api
from rankwise.compare.folder import Folder
from rankwise.python.jobs import AnyRun, comparison_of, run_of
from rankwise.store import Run

Form = Literal["peft", "transformers", "gguf"]


def report(run: AnyRun | Folder) -> Path:
    """Write the page of a run or a comparison, one self-contained HTML file; returns its path.

    Example: `rw.report("runs/first")`

    Raises:
        RunError: there is no run or comparison of that name, or it is damaged.
    """
    found = _found(run)
    return api.report(found) if isinstance(found, Run) else api.report_comparison(found)


def show(run: AnyRun | Folder) -> dict[str, Any]:
    """What is known of a run or a comparison, as `rankwise show --json` prints it. Example: `rw.show("first")["state"]`

    Raises:
        RunError: there is no run or comparison of that name, or it is damaged.
    """
    found = _found(run)
    return api.show(found) if isinstance(found, Run) else api.show_comparison(found)


def runs(folder: str | Path = "runs") -> list[dict[str, Any]]:
    """One mapping a run below a folder, oldest first. Example: `[r["run"] for r in rw.runs()]`"""
    return api.runs(Path(folder))


def open_run(folder: str | Path) -> Run:
    """A run by its folder, or by its name below runs/. Example: `rw.open_run("first").evidence()`

    Raises:
        RunError: there is no run of that name.
    """
    return api.open_run(Path(folder))


def _found(run: AnyRun | Folder) -> Run | Folder:
    """A comparison where one lies there, else a run. Raises RunError."""
    if isinstance(run, Run):
        return run
    if isinstance(run, Folder) or api.find_comparison(Path(run)):
        return comparison_of(run)
    return run_of(run)
