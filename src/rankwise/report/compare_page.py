"""A comparison of methods as one self-contained HTML file, in any state it is in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankwise.records import Bakeoff, Outcome, Trial
from rankwise.report import compare_words
from rankwise.report.compare_charts import curve_figures, sweep_figure, tried_rates
from rankwise.report.compare_looks import looks
from rankwise.report.compare_pareto import pareto_figures
from rankwise.report.compare_rows import CompareView, compare_view
from rankwise.report.compared import examples
from rankwise.report.page import render
from rankwise.version import __version__

TERMS = (
    (
        "Arm",
        "One way to do the job: the untouched base, examples or training rows in the prompt, a method of training.",
    ),
    ("Probe", "A question or row that every arm answers, so that arms are compared item by item."),
    ("Seed", "One repeat of a training run: the same rows in another order, from another start."),
    ("Sweep", "Short runs with different learning rates, of which an arm keeps the best."),
    ("FLOP", "One floating-point operation; TFLOP is a million million of them."),
    ("Nats", "Unit of loss, the surprise per token: 0.7 nats less means that a right token became twice as likely."),
    ("Points", "Percentage points: from 40 % to 50 % is +10 points."),
    ("95 % interval", "The range in which the true value plausibly lies; few probes make it wide."),
    ("Family-wise", "Wide enough that all intervals of one metric hold together, not only one by one."),
    ("Cannot tell", "That interval covers 0: the data do not show which arm is better."),
    ("Front", "Arms that no other one beats in both quality and cost; the dashed line joins them."),
    ("Forgetting", "What the base could do before and the arm does worse, measured as a rise of loss on general text."),
)


def compare_page(bakeoff: Bakeoff, trials: Sequence[Trial], outcome: Outcome | None, *, folder: Path | str) -> str:
    """The page, from the records of the comparison's folder alone.

    Args:
        trials: every run so far.
        outcome: None while runs are missing.
        folder: as the page names it.
    """
    context = compare_context(bakeoff, trials, outcome, folder=folder)
    return render("compare.html.j2", context, version=__version__, figures=context.pop("figures"))


def compare_context(
    bakeoff: Bakeoff, trials: Sequence[Trial], outcome: Outcome | None, *, folder: Path | str
) -> dict[str, Any]:
    """What the templates of a comparison show, as `compare_page` takes it; `figures` are its charts by id."""
    view = compare_view(bakeoff, trials, outcome)
    choices = _choices(bakeoff, trials, outcome, view)
    tried = tried_rates(bakeoff, trials, outcome)
    sweep = sweep_figure(bakeoff, tried)
    figures = {key: figure for own in choices.values() for key, figure in own.items()}
    figures |= curve_figures(bakeoff, trials) | ({"sweep-data": sweep} if sweep else {})
    return {
        "bakeoff": bakeoff,
        "trials": trials,
        "outcome": outcome,
        "view": view,
        "choices": [(m, list(choices[m.name])) for m in view.metrics if choices.get(m.name)],
        "looks": looks(bakeoff),
        "tried": tried,
        "examples": examples(trials),
        "folder": str(folder),
        "say": compare_words,
        "terms": TERMS,
        "figures": figures,
    }


def _choices(
    bakeoff: Bakeoff, trials: Sequence[Trial], outcome: Outcome | None, view: CompareView
) -> dict[str, dict[str, dict[str, Any]]]:
    """Metric -> its pictures."""
    if outcome is None:
        return {}
    return {m.name: pareto_figures(bakeoff, trials, outcome, m, n) for n, m in enumerate(view.metrics)}
