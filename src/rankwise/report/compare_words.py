"""Sentences and tables of a comparison of methods: before it runs, and after it."""

from collections.abc import Sequence

from rankwise.records import Actual, Allowance, ArmResult, Bakeoff, Conclusion, Contrast, Detectable, Outcome, Trial
from rankwise.records.bakeoff import BudgetUnit
from rankwise.report.compared import (
    Metric,
    arm_seconds,
    finals,
    metrics,
    outside,
    planned_runs,
    run_actuals,
    training_runs,
)
from rankwise.report.glossary import metric_name
from rankwise.report.quantities import (
    UNKNOWN,
    bounds,
    count,
    difference,
    duration,
    duration_range,
    flops,
    learning_rate,
    measured,
    plain,
    share,
    size,
    usd,
)

Table = tuple[list[str], list[list[str]]]  # heads, rows
SIDE_NAMES = {"style": "Style", "facts": "Facts", "task": "Task", "forgetting": "Forgetting"}
NOTHING = "-"  # of an arm that trains nothing


# -- before ----------------------------------------------------------------------------------------


def planned_line(bakeoff: Bakeoff) -> str:
    """4 arms, 2 seeds, 10 training runs; budget 8 min, sweep and answers included."""
    arms, seeds = len(bakeoff.allowances), len(bakeoff.seeds)
    runs = planned_runs(bakeoff)
    return (
        f"{_counted(arms, 'arm')}, {_counted(seeds, 'seed')}, {_counted(runs, 'training run')}; "
        f"budget {budget_text(bakeoff.budget, bakeoff.unit)}, sweep, seeds and answers included."
    )


def _counted(number: int, thing: str) -> str:
    return f"{count(number)} {thing}" + ("" if number == 1 else "s")


def budget_text(value: float | None, unit: BudgetUnit) -> str:
    """8 min · 120 TFLOP · 3.50 USD."""
    if value is None:
        return UNKNOWN
    if unit == "flops":
        return flops(value)
    return duration(60 * value) if unit == "minutes" else usd(value)


def planned_table(bakeoff: Bakeoff) -> Table:
    """What each arm may do and is expected to take: heads and rows, for `print_table`."""
    heads = ["arm", "steps a run", "sweep", "FLOPs in all", "training", "answers", "in all (95 %)", "peak memory"]
    return [*heads, "stored"], [_planned_row(a) for a in bakeoff.allowances]


def _planned_row(a: Allowance) -> list[str]:
    trained = a.arm.kind == "trained"
    return [
        a.arm.name,
        count(a.steps) if trained else NOTHING,
        sweep_text(a) if trained else NOTHING,
        flops(a.flops) if trained else NOTHING,
        duration(a.training_seconds) if trained else NOTHING,
        duration(a.evaluation_seconds),
        duration_range(a.interval),
        size(a.peak_memory),
        size(a.stored_bytes) if trained else NOTHING,
    ]


def sweep_text(allowance: Allowance) -> str:
    """3 rates of 8 steps."""
    rates = allowance.learning_rates
    if not allowance.sweep_steps or len(rates) < 2:
        return f"none: {learning_rate(rates[0])}" if rates else "none"
    return f"{count(len(rates))} rates of {_counted(allowance.sweep_steps, 'step')}"


def detectable_line(found: Detectable) -> str:
    """Facts: differences from 22 points on can be told with 48 probes (worst case of a share)."""
    least = difference(found.difference, found.unit).removeprefix("+")
    return (
        f"{metric_name(found.metric)}: a difference of {least} or more can be told with "
        f"{_counted(found.items, 'probe')} ({found.source})"
    )


# -- after -----------------------------------------------------------------------------------------


def stands_line(bakeoff: Bakeoff, trials: Sequence[Trial]) -> str:
    """Of a comparison that has no outcome yet."""
    done, planned = training_runs(trials), planned_runs(bakeoff)
    return (
        f"Not finished: {count(done)} of {_counted(planned, 'training run')} done. "
        "Start it again in this folder, and no finished run is repeated."
    )


def results_table(bakeoff: Bakeoff, trials: Sequence[Trial], outcome: Outcome) -> Table:
    """What each arm reached and took: heads and rows, for `print_table`. A `!` marks a chosen rate at the edge of its
    sweep, and a time outside of its interval.
    """
    measures = metrics(trials, outcome)
    heads = ["arm", "rate", *(metric_name(m.name) for m in measures), "FLOPs a run", "training a run"]
    found = {r.arm: r for r in outcome.results}
    rows = [_result_row(a, found.get(a.arm.name), measures, trials) for a in bakeoff.allowances]
    return [*heads, "peak memory", "stored", "time in all (predicted)"], rows


def _result_row(
    allowance: Allowance, result: ArmResult | None, measures: Sequence[Metric], trials: Sequence[Trial]
) -> list[str]:
    name, trained = allowance.arm.name, allowance.arm.kind == "trained"
    scores = [score_text(result, m) for m in measures]
    taken = {a.quantity: a.actual for a in run_actuals(allowance, finals(trials).get(name, ()))}
    return [
        name,
        rate_text(result) if trained else NOTHING,
        *scores,
        flops(taken["flops"]) if trained else NOTHING,
        duration(taken["train_seconds"]) if trained else NOTHING,
        size(taken["peak_memory"]),
        size(taken["stored_bytes"]) if trained else NOTHING,
        time_text(arm_seconds(allowance, [t for t in trials if t.arm == name])),
    ]


def rate_text(result: ArmResult | None) -> str:
    """0.001 · 0.0001 ! (at the edge of its sweep)."""
    if result is None:
        return UNKNOWN
    return learning_rate(result.learning_rate) + (" !" if result.at_the_edge else "")


def score_text(result: ArmResult | None, metric: Metric) -> str:
    """95 % (89 to 99)."""
    if result is None or metric.name not in result.means:
        return UNKNOWN
    span = result.intervals.get(metric.name)
    value = measured(result.means[metric.name], metric.unit)
    return value + (f" ({bounds(span, metric.unit)})" if span else "")


def time_text(actual: Actual) -> str:
    """1 min 35 s (1.2 to 1.8 min) !"""
    mark = " !" if outside(actual) else ""
    return f"{duration(actual.actual)} ({duration_range(actual.interval)}){mark}"


def conclusion_line(conclusion: Conclusion) -> str:
    """Style: ..."""
    return f"{SIDE_NAMES[conclusion.side]}: {conclusion.text}"


def contrast_line(contrast: Contrast) -> str:
    """Format: lora:r=8 is better than base by +92 points (family-wise 95 %: +83 to +98)."""
    span = f"family-wise 95 %: {bounds(contrast.adjusted, contrast.unit, signed=True)}"
    apart = f"{difference(contrast.difference, contrast.unit)} ({span})"
    return f"{metric_name(contrast.metric)}: {answer_text(contrast)}, {apart}"


def answer_text(contrast: Contrast) -> str:
    """lora:r=8 is better than base · full or base: cannot tell, about 900 more probes are needed."""
    if contrast.answer != "cannot tell":
        return f"{contrast.first} is {contrast.answer} than {contrast.second}"
    more = "" if contrast.more_items is None else f", needs {more_text(contrast)} more probes"
    return f"{contrast.first} or {contrast.second}: cannot tell{more}"


def more_text(contrast: Contrast) -> str:
    """about 1,100; empty where they are told apart. Two digits are all that a guess at a spread is worth."""
    if contrast.answer != "cannot tell":
        return ""
    return UNKNOWN if contrast.more_items is None else f"about {plain(float(f'{contrast.more_items:.2g}'))}"


def spent_line(bakeoff: Bakeoff, outcome: Outcome) -> str:
    """Spent 7 min 30 s of 8 min (94 %)."""
    used = spent(bakeoff, outcome)
    part = "" if used is None else f" ({share(used / bakeoff.budget)})"
    return f"Spent {budget_text(used, bakeoff.unit)} of {budget_text(bakeoff.budget, bakeoff.unit)}{part}."


def spent(bakeoff: Bakeoff, outcome: Outcome) -> float | None:
    """In the unit of the budget."""
    if bakeoff.unit == "flops":
        return outcome.spent_flops
    return outcome.spent_seconds / 60 if bakeoff.unit == "minutes" else outcome.spent_usd
