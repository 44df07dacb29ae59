"""Trials of a comparison -> its Outcome: what each arm reached, what can be told apart, and what follows for each side
of the job."""

from collections.abc import Sequence
from typing import get_args

from rankwise.compare.stats import Table, contrasts_of, mean, tables
from rankwise.compare.verdict import beaten_by, conclusion_text, verdict
from rankwise.errors import RunError
from rankwise.records import ArmResult, Bakeoff, Conclusion, Contrast, Interval, Outcome, Trial
from rankwise.records.past import Side


def conclude(bakeoff: Bakeoff, trials: Sequence[Trial], usd_per_hour: float | None = None) -> Outcome:
    """What finished trials say: of the sweep for the learning rates, of the final runs for all else.

    Args:
        usd_per_hour: of the machine; None: money is not told.

    Raises:
        RunError: no arm has a final run, or two models were not asked the same items.
    """
    arms = [a.arm.name for a in bakeoff.allowances]
    by_arm = {arm: [t for t in trials if t.arm == arm] for arm in arms}
    finished = [arm for arm in arms if any(t.purpose == "final" for t in by_arm[arm])]
    if not finished:
        raise RunError(
            "no arm of the comparison has a final run yet",
            expected="at least one trial of purpose `final`",
            fix="run `rankwise compare` again: it goes on where it stopped",
        )
    found = tables([trial for arm in finished for trial in by_arm[arm]])
    contrasts = tuple(contrast for table in found for contrast in contrasts_of(table))
    results = tuple(_result(bakeoff, arm, by_arm[arm], found) for arm in finished)
    conclusions = tuple(_conclusions(found, contrasts))
    seconds = sum(t.training_seconds + t.evaluation_seconds for t in trials)
    return Outcome(
        bakeoff_hash=bakeoff.content_hash(),
        results=results,
        contrasts=contrasts,
        conclusions=conclusions,
        verdict=verdict(bakeoff, results, contrasts, conclusions),
        spent_flops=sum(t.flops or 0.0 for t in trials),
        spent_seconds=seconds,
        spent_usd=None if usd_per_hour is None else seconds / 3600 * usd_per_hour,
        notes=tuple(_notes(bakeoff, arms, finished, by_arm)),
    )


def _result(bakeoff: Bakeoff, arm: str, trials: Sequence[Trial], found: Sequence[Table]) -> ArmResult:
    final = [t for t in trials if t.purpose == "final"]
    rate = final[0].learning_rate
    tried = {t.learning_rate for t in trials if t.purpose == "sweep" and t.learning_rate is not None}
    means: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for table in found:
        if arm in table.values:
            means[table.about.metric], intervals[table.about.metric] = mean(table, arm)
    flops = [t.flops for t in final if t.flops is not None]
    return ArmResult(
        arm=arm,
        learning_rate=rate,
        at_the_edge=len(tried) > 1 and rate in (min(tried), max(tried)),
        means=means,
        intervals=intervals,
        flops=sum(flops) / len(flops) if flops else None,
        seconds=sum(t.training_seconds for t in final) / len(final),
        peak_memory=max((t.peak_memory for t in final if t.peak_memory is not None), default=None),
        stored_bytes=max((t.stored_bytes for t in final if t.stored_bytes is not None), default=None),
    )


def _conclusions(found: Sequence[Table], contrasts: Sequence[Contrast]) -> list[Conclusion]:
    """One for each metric, sides in the order of the job's questions; a side's first metric speaks for it."""
    said = []
    for side in get_args(Side):
        for table in found:
            if table.about.side != side:
                continue
            of_metric = [c for c in contrasts if c.metric == table.about.metric]
            beaten = beaten_by(of_metric)
            best = tuple(arm for arm in table.values if not beaten.get(arm))
            means = {arm: mean(table, arm)[0] for arm in table.values}
            said.append(
                Conclusion(
                    side=side,
                    metric=table.about.metric,
                    best=best,
                    text=conclusion_text(table.about, means, of_metric, best),
                )
            )
    return said


def _notes(bakeoff: Bakeoff, arms: Sequence[str], finished: Sequence[str], by_arm: dict[str, list[Trial]]) -> list[str]:
    missing = [arm for arm in arms if arm not in finished]
    notes = [f"{arm}: no final run, so nothing is said of it" for arm in missing]
    for allowance in bakeoff.allowances:
        final = [t for t in by_arm[allowance.arm.name] if t.purpose == "final"]
        if allowance.steps and 0 < len(final) < len(bakeoff.seeds):
            notes.append(f"{allowance.arm.name}: {len(final)} of {len(bakeoff.seeds)} seeds have a final run")
    return notes
