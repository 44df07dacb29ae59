"""How records, runs and comparisons show themselves once this package is imported."""

from typing import Any

from rankwise.compare.folder import Folder
from rankwise.errors import RankwiseError
from rankwise.records.shown import Showing, show_as
from rankwise.report import notebook, words
from rankwise.report.shown_words import KINDS, Said, said_of, text_of
from rankwise.store import Run


def register() -> None:
    """Records of a kind that has words, runs and comparisons."""
    for kind in KINDS:
        show_as(kind, Showing(lambda record: text_of(said_of(record)), notebook.record_fragment))
    show_as(Run, Showing(_run_text, _run_html))
    show_as(Folder, Showing(_comparison_text, _comparison_html))


def _run_text(run: Run) -> str:
    """Of a folder that cannot be read its name and why: showing a value never fails."""
    try:
        decided, state = run.plan(), run.state()
        step = max((getattr(event, "step", None) or 0 for event in run.events()), default=0)
        total = decided.verdict.config.max_steps if decided.verdict.config else None
        lines = [words.verdict_sentence(decided), words.state_sentence(state, step, total, run.folder)]
        evidence = [text_of(said_of(run.evidence()))] if run.evidence_path.is_file() else []
    except RankwiseError as error:
        return f"Run({str(run.folder)!r}): {error.what}"
    return "\n".join((f"Run {run.folder}", *evidence, *lines))


def _run_html(run: Run) -> str:
    try:
        evidence = run.evidence() if run.evidence_path.is_file() else None
        return notebook.run_fragment(run.plan(), run.events(), evidence, run.artifact(), run.state(), run.folder)
    except RankwiseError as error:
        return notebook.said_fragment(Said([f"{run.folder} cannot be shown: {error.what}"]))


def _comparison(folder: Folder) -> tuple[Any, Any, Any]:
    return folder.bakeoff(), folder.trials(), folder.outcome() if folder.outcome_path.is_file() else None


def _comparison_text(folder: Folder) -> str:
    try:
        return text_of(notebook.comparison_said(*_comparison(folder)))
    except RankwiseError as error:
        return f"Comparison({str(folder.path)!r}): {error.what}"


def _comparison_html(folder: Folder) -> str:
    try:
        return notebook.comparison_fragment(*_comparison(folder), folder.path)
    except RankwiseError as error:
        return notebook.said_fragment(Said([f"{folder.path} cannot be shown: {error.what}"]))
