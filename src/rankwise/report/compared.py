"""What the records of a comparison say together: its metrics in the order of the page, what each arm was predicted to
take beside what it took, and which answers show best where arms differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankwise.records import Actual, Allowance, Bakeoff, Conclusion, Contrast, Interval, Outcome, Said, Trial
from rankwise.records.past import Side

SIDES: tuple[Side, ...] = ("style", "facts", "task", "forgetting")
ANSWERS = 3  # of each side
FLOPS_SOURCE = "traced, step by step"
CLOCK_SOURCE = "by the clock"


@dataclass(frozen=True)
class Metric:
    """What was measured of every arm.

    Attributes:
        items: rows or probes of one model.
        primary: the one that speaks for its side.
    """

    name: str
    unit: str
    side: Side
    higher_is_better: bool
    items: int
    primary: bool


@dataclass(frozen=True)
class Example:
    """One prompt, and what each arm that was asked it said at its first seed."""

    side: Side
    prompt: str
    expected: str
    answers: tuple[tuple[str, Said], ...]


def finals(trials: Sequence[Trial]) -> dict[str, tuple[Trial, ...]]:
    """Arm -> its finished runs, by seed."""
    found: dict[str, list[Trial]] = {}
    for trial in sorted((t for t in trials if t.purpose == "final"), key=lambda t: t.seed):
        found.setdefault(trial.arm, []).append(trial)
    return {arm: tuple(own) for arm, own in found.items()}


def spoken(outcome: Outcome) -> tuple[Conclusion, ...]:
    """The first conclusion of each side, which speaks for it."""
    first: dict[Side, Conclusion] = {}
    for conclusion in outcome.conclusions:
        first.setdefault(conclusion.side, conclusion)
    return tuple(first[side] for side in SIDES if side in first)


def decision(outcome: Outcome) -> str:
    """The verdict without the conclusions that it repeats; whole where nothing else is in it."""
    rest = outcome.verdict
    for conclusion in outcome.conclusions:
        rest = rest.replace(f"{conclusion.side.capitalize()}: {conclusion.text}", "")
    return " ".join(rest.split()) or outcome.verdict


def metrics(trials: Sequence[Trial], outcome: Outcome | None) -> tuple[Metric, ...]:
    """Side by side, that which speaks for a side first; without an outcome as they were scored."""
    primary = {c.metric for c in spoken(outcome)} if outcome else set()
    found: dict[str, Metric] = {}
    for trial in trials:
        for s in trial.scores:
            own = Metric(s.metric, s.unit, s.side, s.higher_is_better, len(s.values), s.metric in primary)
            found.setdefault(s.metric, own)
    return tuple(sorted(found.values(), key=lambda m: (SIDES.index(m.side), not m.primary)))


def contrasts(bakeoff: Bakeoff, outcome: Outcome, metric: str) -> tuple[Contrast, ...]:
    """Of one metric, the arm that was named later first: what training adds to the base is a gain, not a loss."""
    place = {a.arm.name: number for number, a in enumerate(bakeoff.allowances)}
    own = [c for c in outcome.contrasts if c.metric == metric]
    return tuple(_turned(c) if place.get(c.first, 0) < place.get(c.second, 0) else c for c in own)


def _turned(contrast: Contrast) -> Contrast:
    def turn(interval: Interval) -> Interval:
        return -interval[1], -interval[0]

    turned = {"better": "worse", "worse": "better"}.get(contrast.answer, contrast.answer)
    content = {"first": contrast.second, "second": contrast.first, "difference": -contrast.difference}
    content |= {"interval": turn(contrast.interval), "adjusted": turn(contrast.adjusted), "answer": turned}
    return contrast.model_copy(update=content)


def planned_runs(bakeoff: Bakeoff) -> int:
    """Training runs of the whole comparison: the sweeps, and one for each seed."""
    trained = [a for a in bakeoff.allowances if a.arm.kind == "trained"]
    swept = sum(len(a.learning_rates) for a in trained if a.sweep_steps)
    return swept + len(trained) * len(bakeoff.seeds)


def training_runs(trials: Sequence[Trial]) -> int:
    return sum(t.learning_rate is not None for t in trials)


def run_actuals(bakeoff: Bakeoff, allowance: Allowance, trials: Sequence[Trial]) -> tuple[Actual, ...]:
    """One final run of an arm as it was predicted and as it went: FLOPs, training, memory, bytes.

    Args:
        trials: the arm's final runs; means over them, of memory the most.
    """
    steps = allowance.steps + allowance.odd_steps / len(bakeoff.seeds)
    untrained = allowance.arm.kind != "trained"
    flops = 0.0 if untrained else _times(allowance.step_flops, steps)
    seconds = 0.0 if untrained else _times(allowance.step_seconds, steps)
    spent = 0.0 if untrained and trials else _mean([t.flops for t in trials])
    took = _mean([t.training_seconds for t in trials])
    peak = max((t.peak_memory for t in trials if t.peak_memory is not None), default=None)
    stored = 0.0 if untrained else allowance.stored_bytes
    kept = 0.0 if untrained and trials else _mean([t.stored_bytes for t in trials])
    return (
        _actual("flops", "FLOP", flops, spent, FLOPS_SOURCE),
        _actual("train_seconds", "s", seconds, took, CLOCK_SOURCE),
        _actual("peak_memory", "B", allowance.peak_memory, peak, "of the process"),
        _actual("stored_bytes", "B", stored, kept, "of the published files"),
    )


def arm_flops(allowance: Allowance, trials: Sequence[Trial]) -> Actual:
    """All training of an arm, its sweep included.

    Args:
        trials: all runs of the arm.
    """
    known = [t.flops or (0.0 if allowance.arm.kind != "trained" else None) for t in trials]
    spent = None if None in known or not known else sum(f for f in known if f)
    return _actual("flops", "FLOP", allowance.flops, spent, FLOPS_SOURCE)


def arm_seconds(allowance: Allowance, trials: Sequence[Trial]) -> Actual:
    """All runs and all answers of an arm, beside the interval that was given for them."""
    training = allowance.training_seconds if allowance.arm.kind == "trained" else 0.0
    parts = (training, allowance.evaluation_seconds)
    predicted = None if None in parts else sum(p for p in parts if p is not None)
    took = sum(t.training_seconds + t.evaluation_seconds for t in trials) if trials else None
    return Actual(
        quantity="arm_seconds",
        unit="s",
        predicted=predicted,
        interval=allowance.interval,
        actual=took,
        source=CLOCK_SOURCE,
    )


def _actual(quantity: str, unit: str, predicted: float | None, actual: float | None, source: str) -> Actual:
    return Actual(quantity=quantity, unit=unit, predicted=predicted, interval=None, actual=actual, source=source)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def outside(actual: Actual) -> bool:
    """What happened lies outside the interval that was given."""
    if actual.interval is None or actual.actual is None:
        return False
    return not actual.interval[0] <= actual.actual <= actual.interval[1]


def examples(trials: Sequence[Trial]) -> tuple[Example, ...]:
    """A few prompts of each side on which arms differ: those that split right from wrong over the seeds, the widest gap
    first; then those with the most different answers, unless all are right; else in the order of asking.
    """
    told = finals(trials)
    asked: dict[tuple[Side, str, str], dict[str, list[Said]]] = {}
    for arm, runs in told.items():
        for run in runs:
            for said in run.answers:
                asked.setdefault((said.side, said.prompt, said.expected), {}).setdefault(arm, []).append(said)
    ranked = sorted(asked.items(), key=lambda item: _telling(item[1]), reverse=True)
    kept = [(key, arms) for key, arms in ranked if _differ(arms)]
    return tuple(
        Example(side, prompt, expected, tuple((arm, said[0]) for arm, said in arms.items()))
        for wanted in SIDES
        for (side, prompt, expected), arms in [item for item in kept if item[0][0] == wanted][:ANSWERS]
    )


def _differ(arms: Mapping[str, Sequence[Said]]) -> bool:
    """At the first seed, which is the one that is shown."""
    first = [said[0] for said in arms.values()]
    return len({s.answer for s in first}) > 1 and {s.ok for s in first} != {True}


def _telling(arms: Mapping[str, Sequence[Said]]) -> tuple[float, int]:
    """Gap between the arm that is most and the one that is least often right; number of different answers."""
    right = [sum(bool(s.ok) for s in said) / len(said) for said in arms.values()]
    return max(right) - min(right), len({said[0].answer for said in arms.values()})
