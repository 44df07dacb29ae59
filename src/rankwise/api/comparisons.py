"""What is known of comparisons, from their folders alone."""

from pathlib import Path
from typing import Any

from rankwise.compare.folder import Folder
from rankwise.errors import RunError
from rankwise.files import write_text
from rankwise.report.compare_page import compare_page
from rankwise.report.compared import planned_runs, training_runs
from rankwise.store import Run

COMPARISONS = Path("comparisons")


def find_comparison(path: Path) -> Folder | None:
    """By its folder, or by its name below comparisons/; None: no comparison lies there."""
    below = COMPARISONS / path
    for folder in (Folder(path), Folder(below)):
        if folder.bakeoff_path.is_file() or folder.draft_path.is_file():
            return folder
    return None


def report_comparison(folder: Folder) -> Path:
    """Write report.html from the folder alone, finished or not; returns its path."""
    outcome = folder.outcome() if folder.outcome_path.is_file() else None
    write_text(folder.report_path, compare_page(folder.bakeoff(), folder.trials(), outcome, folder=folder.path))
    return folder.report_path


def show_comparison(folder: Folder) -> dict[str, Any]:
    """What `rankwise show --json` prints of a comparison."""
    trials = folder.trials()
    return {
        **comparison_progress(folder),
        "plan": folder.bakeoff().model_dump(mode="json"),
        "trials": [t.model_dump(mode="json", exclude={"scores", "answers", "curve"}) for t in trials],
        "outcome": folder.outcome().model_dump(mode="json") if folder.outcome_path.is_file() else None,
        "report": str(folder.report_path) if folder.report_path.is_file() else None,
    }


def list_comparisons(root: Path = COMPARISONS) -> list[dict[str, Any]]:
    """One line a comparison below `root`, by name."""
    named = sorted({p.parent for name in ("asked.json", "comparison.json") for p in root.glob(f"*/{name}")})
    return [_line(Folder(path)) for path in named]


def _line(folder: Folder) -> dict[str, Any]:
    try:
        bakeoff = folder.bakeoff()
        verdict = folder.outcome().verdict if folder.outcome_path.is_file() else None
        progress = comparison_progress(folder)
    except RunError as error:
        return {"comparison": str(folder.path), "state": "damaged", "what": error.what}
    arms = [a.arm.name for a in bakeoff.allowances]
    return progress | {"model": bakeoff.job.model, "arms": arms, "verdict": verdict}


def comparison_progress(folder: Folder) -> dict[str, Any]:
    """Its folder, its state, and how many of its training runs are done."""
    done, planned = training_runs(folder.trials()), planned_runs(folder.bakeoff())
    return {"comparison": str(folder.path), "state": state(folder), "runs": done, "planned_runs": planned}


def state(folder: Folder) -> str:
    """planned | running | stopped | finished, from the folder alone."""
    if folder.outcome_path.is_file():
        return "finished"
    if Run(folder.path).state() == "running":
        return "running"
    return "stopped" if folder.trials() else "planned"
