"""What the template of a comparison shows, computed: tables of arms, the forest of contrasts, the budget, the notes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.records import Actual, Allowance, ArmResult, Bakeoff, Conclusion, Contrast, Outcome, Trial
from rankwise.report import compare_words as say
from rankwise.report.charts import Track
from rankwise.report.compare_looks import Look, looks
from rankwise.report.compared import (
    Metric,
    arm_flops,
    arm_seconds,
    contrasts,
    decision,
    finals,
    metrics,
    outside,
    run_actuals,
    spoken,
)
from rankwise.report.quantities import UNKNOWN, bounds, duration, duration_range, flops, learning_rate, measured, size
from rankwise.report.run_words import judgement

PADDING = 0.06  # of a forest's width beyond the widest interval
COSTS = {
    "flops": "FLOPs",
    "train_seconds": "training time",
    "peak_memory": "peak memory",
    "stored_bytes": "stored bytes",
}
WRITTEN = {"FLOP": flops, "s": duration, "B": size}


@dataclass(frozen=True)
class Cell:
    """A number, what stands below it in small print, and a warning where it lies outside of what was predicted."""

    value: str
    below: tuple[str, ...]
    warning: str = ""
    best: bool = False


@dataclass(frozen=True)
class ArmRow:
    look: Look
    scores: tuple[Cell, ...]
    rate: Cell
    costs: tuple[Cell, ...]


@dataclass(frozen=True)
class Forest:
    """The contrasts of one metric on one scale, positions in percent of the width.

    Attributes:
        text: what is concluded, where another metric speaks for the side.
        sources: how its intervals were computed.
        rows: of each pair the interval that holds for all together, and its own.
    """

    metric: Metric
    text: str
    sources: tuple[str, ...]
    zero: float
    rows: tuple[tuple[Contrast, Track, Track], ...]


@dataclass(frozen=True)
class BudgetRow:
    look: Look
    steps: str
    sweep: str
    runs: int
    flops: Cell
    seconds: Cell


@dataclass(frozen=True)
class CompareView:
    headline: str
    paragraph: str
    concluded: tuple[Conclusion, ...]
    metrics: tuple[Metric, ...]
    arms: tuple[ArmRow, ...]
    undrawn: tuple[str, ...]
    forests: tuple[Forest, ...]
    budget: tuple[BudgetRow, ...]
    bar: tuple[float, float] | None
    settings: tuple[tuple[str, tuple[str, ...]], ...]
    configured: tuple[str, ...]
    notes: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]


def compare_view(bakeoff: Bakeoff, trials: Sequence[Trial], outcome: Outcome | None) -> CompareView:
    """Of a comparison in any state; without an outcome there is nothing to conclude, and the page says so."""
    found = metrics(trials, outcome)
    said = decision(outcome) if outcome else say.stands_line(bakeoff, trials)
    headline, _, paragraph = said.partition(". ")
    own = looks(bakeoff)
    configured = [a for a in bakeoff.allowances if a.config]
    return CompareView(
        headline=headline.rstrip(".") + ".",
        paragraph=paragraph,
        concluded=spoken(outcome) if outcome else (),
        metrics=found,
        arms=tuple(_arm_row(own[a.arm.name], bakeoff, a, trials, outcome, found) for a in bakeoff.allowances),
        undrawn=tuple(_undrawn(bakeoff, trials)),
        forests=_forests(bakeoff, found, outcome) if outcome else (),
        budget=tuple(_budget_row(own[a.arm.name], a, trials) for a in bakeoff.allowances),
        bar=_bar(bakeoff, outcome),
        settings=_settings(configured),
        configured=tuple(a.arm.name for a in configured),
        notes=_notes(bakeoff, trials, outcome),
        sources=tuple(_sources(bakeoff)),
    )


# -- what each arm reached and took ----------------------------------------------------------------


def _arm_row(
    look: Look,
    bakeoff: Bakeoff,
    allowance: Allowance,
    trials: Sequence[Trial],
    outcome: Outcome | None,
    found: Sequence[Metric],
) -> ArmRow:
    result = next((r for r in outcome.results if r.arm == look.arm), None) if outcome else None
    own = finals(trials).get(look.arm, ())
    costs = [_cost_cell(a) for a in run_actuals(bakeoff, allowance, own)]
    costs.append(_cost_cell(arm_seconds(allowance, [t for t in trials if t.arm == look.arm])))
    return ArmRow(
        look=look,
        scores=tuple(_score_cell(m, result, allowance, outcome) for m in found),
        rate=_rate_cell(allowance, result),
        costs=tuple(costs),
    )


def _rate_cell(allowance: Allowance, result: ArmResult | None) -> Cell:
    if allowance.arm.kind != "trained":
        return Cell("not trained", ())
    tried = f"of {len(allowance.learning_rates)} tried" if allowance.sweep_steps else "not swept"
    rate = learning_rate(result.learning_rate) if result else UNKNOWN
    return Cell(rate, (tried,), "at the edge" if result and result.at_the_edge else "")


def _score_cell(metric: Metric, result: ArmResult | None, allowance: Allowance, outcome: Outcome | None) -> Cell:
    if result is None or metric.name not in result.means:
        return Cell(UNKNOWN, ())
    below = [bounds(result.intervals.get(metric.name), metric.unit)]
    if metric.name == "heldout_loss" and allowance.heldout_loss is not None:
        below.append(f"expected {measured(allowance.heldout_loss, metric.unit)}")
    best = any(result.arm in c.best for c in outcome.conclusions if c.metric == metric.name) if outcome else False
    return Cell(measured(result.means[metric.name], metric.unit), tuple(below), best=best)


def _cost_cell(actual: Actual) -> Cell:
    """A number beside its prediction; nothing stands below what nobody had to predict."""
    write = WRITTEN[actual.unit]
    if not actual.predicted and not actual.actual and actual.predicted == actual.actual == 0:
        return Cell("none", ())
    if actual.predicted is None and actual.actual is None:
        return Cell(UNKNOWN, ())
    below = [f"predicted {write(actual.predicted)}"]
    if actual.interval:
        below.append(f"95 %: {duration_range(actual.interval)}")
    if actual.predicted is not None and actual.actual is not None and actual.interval is None:
        below.append(judgement(actual).removesuffix(", no interval was given"))
    return Cell(write(actual.actual), tuple(below), "outside" if outside(actual) else "")


def _undrawn(bakeoff: Bakeoff, trials: Sequence[Trial]) -> Iterator[str]:
    """Peak memory of base, fewshot."""
    own = finals(trials)
    found: dict[str, list[str]] = {}
    for allowance in bakeoff.allowances:
        for actual in run_actuals(bakeoff, allowance, own.get(allowance.arm.name, ())):
            if actual.actual is None:
                found.setdefault(actual.quantity, []).append(allowance.arm.name)
    for quantity, arms in found.items():
        yield f"{COSTS[quantity]} of {', '.join(arms)}"


# -- contrasts -------------------------------------------------------------------------------------


def _forests(bakeoff: Bakeoff, found: Sequence[Metric], outcome: Outcome) -> tuple[Forest, ...]:
    groups = ((m, contrasts(bakeoff, outcome, m.name)) for m in found)
    texts = {c.metric: say.conclusion_text(c) for c in outcome.conclusions}
    return tuple(_forest(m, own, "" if m.primary else texts.get(m.name, "")) for m, own in groups if own)


def _forest(metric: Metric, own: Sequence[Contrast], text: str) -> Forest:
    ends = [0.0, *(end for c in own for end in (*c.adjusted, *c.interval, c.difference))]
    pad = PADDING * (max(ends) - min(ends)) or 1.0
    low, wide = min(ends) - pad, max(ends) - min(ends) + 2 * pad

    def at(value: float) -> float:
        return 100 * (value - low) / wide

    def track(contrast: Contrast, ends: tuple[float, float]) -> Track:
        return Track(at(ends[0]), at(ends[1]), at(contrast.difference))

    sources = tuple(dict.fromkeys(c.source for c in own))
    return Forest(metric, text, sources, at(0.0), tuple((c, track(c, c.adjusted), track(c, c.interval)) for c in own))


# -- budget, settings, notes -----------------------------------------------------------------------


def _budget_row(look: Look, allowance: Allowance, trials: Sequence[Trial]) -> BudgetRow:
    own, trained = [t for t in trials if t.arm == look.arm], allowance.arm.kind == "trained"
    return BudgetRow(
        look=look,
        steps=say.steps_text(allowance) if trained else "none",
        sweep=say.sweep_text(allowance) if trained else "none",
        runs=len(own),
        flops=_cost_cell(arm_flops(allowance, own)),
        seconds=_cost_cell(arm_seconds(allowance, own)),
    )


def _bar(bakeoff: Bakeoff, outcome: Outcome | None) -> tuple[float, float] | None:
    """Where what was spent and the budget end, in percent of the wider one; None: unknown."""
    used = say.spent(bakeoff, outcome) if outcome else None
    if used is None:
        return None
    widest = max(used, bakeoff.budget)
    return 100 * used / widest, 100 * bakeoff.budget / widest


def _settings(configured: Sequence[Allowance]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Settings by their Hugging Face names, those that differ between arms first; learning rate and seed are each
    run's own.
    """
    dumps = [a.config.model_dump(mode="json", exclude={"learning_rate", "seed"}) for a in configured if a.config]
    keys = [key for key in (dumps[0] if dumps else ()) if any(d[key] is not None for d in dumps)]
    rows = [(key, tuple(_setting(d[key]) for d in dumps)) for key in keys]
    return tuple(sorted(rows, key=lambda row: len(set(row[1])) == 1))


def _setting(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _notes(bakeoff: Bakeoff, trials: Sequence[Trial], outcome: Outcome | None) -> tuple[str, ...]:
    """Each once; those of runs with the runs that they are of."""
    runs: dict[str, list[str]] = {}
    for trial in trials:
        for note in trial.notes:
            runs.setdefault(note, []).append(_run_name(trial))
    ran = [f"{'; '.join(names)}: {note}" for note, names in runs.items()]
    return tuple(dict.fromkeys((*bakeoff.notes, *(outcome.notes if outcome else ()), *ran)))


def _run_name(trial: Trial) -> str:
    """full at 0.0001 in the sweep · full, seed 1."""
    if trial.purpose == "sweep":
        return f"{trial.arm} at {learning_rate(trial.learning_rate)} in the sweep"
    return f"{trial.arm}, seed {trial.seed}"


def _sources(bakeoff: Bakeoff) -> list[tuple[str, str]]:
    """How each number was computed."""
    earlier = any(a.heldout_loss is not None for a in bakeoff.allowances)
    least = list(dict.fromkeys(d.source for d in bakeoff.detectable))
    return [
        ("Scores", "mean over all probes and seeds of an arm; below it the 95 % interval"),
        *([("Expected", "by an earlier comparison on the same base and kind of data")] if earlier else []),
        ("Differences", "item by item on the same items; how their intervals were computed stands below each table"),
        ("Better, worse", "0 lies outside the interval that holds 95 % for all contrasts of a metric together"),
        ("More probes", "as many as would show a difference as large as the one seen, all else alike"),
        *([("Detectable", "; ".join(least) + "; found in 80 % of repeats, before the run")] if least else []),
        ("Learning rate", "each arm's own, by the loss of its sweep on rows that no score is taken on; counted"),
        ("FLOPs", "traced step by step at the real lengths of its rows; a multiply-add counts as two"),
        ("Time", "of training: all steps of a run by the clock, mean of the seeds; in all: every run and every answer "
         "of an arm"),
        ("Peak memory", "of the process of a run, the most of its seeds; of untrained arms it is not measured"),
        ("Stored", "bytes of the weights that one run publishes; an untrained arm publishes none"),
        ("Spent", "on training and, of time and money, on answers; loading and waiting are not in it"),
        ("Predicted", "written into comparison.json before the first run"),
    ]  # fmt: skip
