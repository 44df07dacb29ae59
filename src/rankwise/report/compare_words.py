"""Sentences and tables of a comparison of methods: before it runs, and after it."""

from collections.abc import Sequence

from rankwise.records import Actual, Allowance, ArmResult, Bakeoff, Conclusion, Contrast, Detectable, Outcome, Trial
from rankwise.records.bakeoff import BudgetUnit
from rankwise.report.compared import (
    Metric,
    arm_seconds,
    contrasts,
    decision,
    finals,
    metrics,
    outside,
    planned_runs,
    run_actuals,
    spoken,
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
LEAST_P = 0.001  # below it, digits say nothing
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
        steps_text(a) if trained else NOTHING,
        sweep_text(a) if trained else NOTHING,
        flops(a.flops) if trained else NOTHING,
        duration(a.training_seconds) if trained else NOTHING,
        duration(a.evaluation_seconds),
        duration_range(a.interval),
        size(a.peak_memory),
        size(a.stored_bytes) if trained else NOTHING,
    ]


def steps_text(allowance: Allowance) -> str:
    """36 · 36, one more in 1."""
    more = f", one more in {count(allowance.odd_steps)}" if allowance.odd_steps else ""
    return f"{count(allowance.steps)}{more}"


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


def scores_table(bakeoff: Bakeoff, trials: Sequence[Trial], outcome: Outcome) -> Table:
    """What each arm reached, a row for each metric and below each number its 95 % interval: heads and rows."""
    results = {r.arm: r for r in outcome.results}
    arms = [a.arm.name for a in bakeoff.allowances]
    measures = metrics(trials, outcome)
    rows = [[_measure_text(m), *(score_text(results.get(arm), m) for arm in arms)] for m in measures]
    return ["side", *arms], rows


def _measure_text(metric: Metric) -> str:
    """style: Format, higher is better, in two lines."""
    better = "higher" if metric.higher_is_better else "lower"
    return f"{metric.side}: {metric_name(metric.name)}\n{better} is better, {count(metric.items)} probes"


def score_text(result: ArmResult | None, metric: Metric) -> str:
    """95 %, and in a second line 89 to 99."""
    if result is None or metric.name not in result.means:
        return UNKNOWN
    span = result.intervals.get(metric.name)
    value = measured(result.means[metric.name], metric.unit)
    return value + (f"\n{bounds(span, metric.unit)}" if span else "")


def costs_table(bakeoff: Bakeoff, trials: Sequence[Trial], outcome: Outcome) -> Table:
    """What each arm took: heads and rows. A `!` marks a chosen rate at the edge of its sweep, and a time outside of the
    interval that was predicted for it.
    """
    heads = ["arm", "rate", "FLOPs a run", "training a run", "peak memory", "stored", "in all, and as predicted"]
    found = {r.arm: r for r in outcome.results}
    return heads, [_cost_row(bakeoff, a, found.get(a.arm.name), trials) for a in bakeoff.allowances]


def _cost_row(bakeoff: Bakeoff, allowance: Allowance, result: ArmResult | None, trials: Sequence[Trial]) -> list[str]:
    name, trained = allowance.arm.name, allowance.arm.kind == "trained"
    taken = {a.quantity: a.actual for a in run_actuals(bakeoff, allowance, finals(trials).get(name, ()))}
    return [
        name,
        rate_text(result) if trained else NOTHING,
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


def time_text(actual: Actual) -> str:
    """1 min 35 s !, and in a second line 1.2 to 1.8 min."""
    mark = " !" if outside(actual) else ""
    return f"{duration(actual.actual)}{mark}\n{duration_range(actual.interval)}"


def verdict_lines(outcome: Outcome) -> list[str]:
    """What the verdict decides, then a line for each side of the job."""
    return [decision(outcome), *(f"{SIDE_NAMES[c.side]}: {conclusion_text(c)}" for c in spoken(outcome))]


def conclusion_text(conclusion: Conclusion) -> str:
    """With the metric's name, where it begins with its key."""
    name, rest = metric_name(conclusion.metric), conclusion.text.removeprefix(f"{conclusion.metric} (")
    return conclusion.text if rest == conclusion.text else f"{name} ({rest}"


def contrasts_table(bakeoff: Bakeoff, trials: Sequence[Trial], outcome: Outcome) -> Table:
    """Pairs of arms on the metric that speaks for each side: heads and rows."""
    spoken_for = [m.name for m in metrics(trials, outcome) if m.primary]
    heads = ["metric", "arms", "difference", "95 %, all pairs", "the first is", "more probes"]
    return heads, [_contrast_row(c) for name in spoken_for for c in contrasts(bakeoff, outcome, name)]


def _contrast_row(contrast: Contrast) -> list[str]:
    return [
        metric_name(contrast.metric),
        f"{contrast.first} - {contrast.second}",
        difference(contrast.difference, contrast.unit),
        bounds(contrast.adjusted, contrast.unit, signed=True),
        contrast.answer,
        more_text(contrast),
    ]


def p_text(value: float) -> str:
    """0.41 · below 0.001."""
    return "below 0.001" if value < LEAST_P else plain(value)


def more_text(contrast: Contrast) -> str:
    """about 1,100; empty where they are told apart. Two digits are all that a guess at a spread is worth."""
    if contrast.answer != "cannot tell":
        return ""
    return UNKNOWN if contrast.more_items is None else f"about {plain(float(f'{contrast.more_items:.2g}'))}"


def spent_line(bakeoff: Bakeoff, outcome: Outcome) -> str:
    """Spent on training and answers: 7 min 30 s of 8 min (94 %)."""
    used = spent(bakeoff, outcome)
    part = "" if used is None else f" ({share(used / bakeoff.budget)})"
    what = "training" if bakeoff.unit == "flops" else "training and answers"
    return f"Spent on {what}: {budget_text(used, bakeoff.unit)} of {budget_text(bakeoff.budget, bakeoff.unit)}{part}."


def spent(bakeoff: Bakeoff, outcome: Outcome) -> float | None:
    """In the unit of the budget."""
    if bakeoff.unit == "flops":
        return outcome.spent_flops
    return outcome.spent_seconds / 60 if bakeoff.unit == "minutes" else outcome.spent_usd
