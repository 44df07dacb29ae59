"""What is known of runs, from their folders alone."""

from pathlib import Path
from typing import Any

from rankwise.errors import RunError
from rankwise.files import write_text
from rankwise.report.page import plan_page, run_page
from rankwise.report.words import knows_or_sounds
from rankwise.store import Run, list_runs
from rankwise.watch.findings import find


def report(run: Run) -> Path:
    """Write report.html from the folder alone; returns its path."""
    decided, state = run.plan(), run.state()
    if state == "planned":
        write_text(run.report_path, plan_page(decided))
        return run.report_path
    evidence = run.evidence() if run.evidence_path.is_file() else None
    events = run.events()
    findings = () if evidence else find(decided, events)
    page = run_page(decided, events, evidence, run.artifact(), state, folder=str(run.folder), findings=findings)
    write_text(run.report_path, page)
    return run.report_path


def show(run: Run) -> dict[str, Any]:
    """What `rankwise show --json` prints: verdict, losses, evaluation, verification and artifact of one run."""
    decided, artifact = run.plan(), run.artifact()
    evidence = run.evidence() if run.evidence_path.is_file() else None
    fields = ("first_loss", "final_loss", "base_validation_loss", "best_validation_loss", "final_validation_loss")
    return {
        "headline": knows_or_sounds(evidence.evaluation) if evidence and evidence.evaluation else None,
        "run": str(run.folder),
        "state": run.state(),
        "parent": parent.model_dump(mode="json") if (parent := decided.facts.parent) else None,
        "verdict": decided.verdict.model_dump(mode="json"),
        "losses": {name: getattr(evidence, name) for name in fields} if evidence else None,
        "steps": evidence.steps if evidence else None,
        "actuals": [a.model_dump(mode="json") for a in evidence.actuals] if evidence else None,
        "findings": [f.model_dump(mode="json") for f in evidence.findings] if evidence else None,
        "evaluation": evidence.evaluation.model_dump(mode="json") if evidence and evidence.evaluation else None,
        "benchmarks": evidence.benchmarks.model_dump(mode="json") if evidence and evidence.benchmarks else None,
        "verification": artifact.verification.model_dump(mode="json") if artifact else None,
        "artifact": artifact.model_dump(mode="json", exclude={"verification"}) if artifact else None,
        "report": str(run.report_path) if run.report_path.is_file() else None,
    }


def runs(root: Path) -> list[dict[str, Any]]:
    """One line a run below `root`, oldest first."""
    return [summary(run) for run in list_runs(root)]


def summary(run: Run) -> dict[str, Any]:
    """A run as `rankwise runs --json` lists it; one whose files are damaged says so."""
    try:
        decided = run.plan()
        evidence = run.evidence() if run.evidence_path.is_file() else None
    except RunError as error:
        return {"run": str(run.folder), "state": "damaged", "what": error.what}
    return {
        "run": str(run.folder),
        "state": run.state(),
        "model": decided.job.model,
        "method": decided.verdict.method,
        "candidate": decided.verdict.candidate,
        "steps": evidence.steps if evidence else None,
        "base_validation_loss": evidence.base_validation_loss if evidence else None,
        "best_validation_loss": evidence.best_validation_loss if evidence else None,
        "proven": run.artifact_path.is_file(),
    }


def open_run(folder: Path) -> Run:
    """A run by its folder, or by its name below runs/. Raises RunError."""
    if not folder.exists() and (Path("runs") / folder).is_dir():
        folder = Path("runs") / folder
    if not folder.exists():
        raise RunError(f"there is no run {folder}", fix="`rankwise runs` lists the runs of this folder")
    return Run.open(folder)
