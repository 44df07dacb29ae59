"""X6: is alpha over r a knob of the learning rate? On the small model the best rate by rank and alpha over a grid; on
the embedded model what the very first step changes.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import linear_regression, mean
from typing import Any

from benchmarks.lesson.arms import base_folder, pad, plain, split
from benchmarks.lesson.jobs import Bench, Job
from benchmarks.lesson.lists import encoded
from benchmarks.lesson.number import Number, Numbers, of_seeds
from benchmarks.lesson.stored import knob_job, small_base_job
from benchmarks.lesson.training import carried_out, config_of, mean_loss
from rankwise.model.attach import attach
from rankwise.model.load import load_base

ALPHA = 32.0
TRADE = 4.0  # alpha times this, the rate over it
SMALL = (0.002, 0.3)  # nats: a fall of which the first step is neither rounding nor far from a straight line
FIRST_RATES = (3e-5, 1e-4, 3e-4)
USES = ("batch", "train", "dev", "test", "knob_ranks", "knob_alphas")


def first_job(seed: int) -> Job:
    return Job("first", {"seed": seed, "rates": list(FIRST_RATES)})


def jobs(bench: Bench) -> list[Job]:
    scale, seeds = bench.scale, range(bench.scale.seeds)
    bases = [small_base_job(s) for s in seeds]
    grid = [
        knob_job(r, alpha, rate, s)
        for s in seeds
        for r in scale.knob_ranks
        for alpha in scale.knob_alphas
        for rate in scale.knob_rates
    ]
    return [*bases, *grid, *(first_job(s) for s in seeds)]


def first_steps(bench: Bench, job: Job) -> dict[str, Any]:
    """The loss of one batch before and after a step on it, fp32, for each rank, alpha and rate."""
    scale, seed = bench.scale, job.of["seed"]
    rows = encoded(split(bench, seed).train[: scale.batch], plain())
    found = []
    for r in scale.knob_ranks:
        for alpha in scale.knob_alphas:
            for rate in job.of["rates"]:
                bench.breathe()
                config = config_of("lora", rate, 1, seed, len(rows), r, alpha)
                model = attach(load_base(base_folder(), dtype="fp32"), config)
                done = carried_out(model, rows, config, pad_token_id=pad())
                after = mean_loss(model, rows)
                found.append({"r": r, "alpha": alpha, "rate": rate, "before": done.losses[0], "after": after})
    return {"steps": found}


def best_rate(losses: Mapping[float, float]) -> float:
    """log2 of the rate with the least loss, by a parabola through its neighbours where it has two."""
    rates = sorted(losses)
    at = min(range(len(rates)), key=lambda i: losses[rates[i]])
    if at in (0, len(rates) - 1):
        return math.log2(rates[at])
    x = [math.log2(rates[i]) for i in (at - 1, at, at + 1)]
    left, middle, right = (math.log(losses[rates[i]]) for i in (at - 1, at, at + 1))
    bend = left - 2 * middle + right
    return x[1] if bend <= 0 else x[1] + 0.5 * (left - right) / bend * (x[2] - x[0]) / 2


def losses_by_rate(bench: Bench, r: int, alpha: float, seed: int) -> dict[float, float]:
    """Loss after the last step; a run that is no longer a number counts as the start."""
    found = {}
    for rate in bench.scale.knob_rates:
        start, end = _ends(bench, r, alpha, rate, seed)
        found[rate] = start if end is None else end
    return found


def measured(bench: Bench) -> Numbers:
    seeds, ranks = range(bench.scale.seeds), bench.scale.knob_ranks
    low, high = min(ranks), max(ranks)

    def shift(seed: int) -> float:
        ends = (best_rate(losses_by_rate(bench, r, ALPHA, seed)) for r in (low, high))
        return abs(next(ends) - next(ends))

    first = [bench.get(first_job(s))["steps"] for s in seeds]
    return {
        "best_rate": of_seeds([shift(s) for s in seeds]),
        "slope": _number([slope(steps) for steps in first]),
        "across_ranks": _number([across(steps, low, high) for steps in first]),
        "traded": _number([traded(bench, s) for s in seeds]),
    }


def _number(values: Sequence[float | None]) -> Number:
    """Without an interval where a seed has no value."""
    known = [v for v in values if v is not None]
    return of_seeds(known) if len(known) == len(values) else Number(known, None)


def _small(steps: Sequence[Mapping[str, Any]]) -> list[tuple[int, float, float]]:
    """(r, alpha x rate, fall) of the steps whose fall is small."""
    falls = [(s["r"], s["alpha"] * s["rate"], s["before"] - s["after"]) for s in steps]
    return [(r, size, fall) for r, size, fall in falls if SMALL[0] <= fall <= SMALL[1]]


def slope(steps: Sequence[Mapping[str, Any]]) -> float | None:
    """Power of alpha x rate with which the fall grows; None for fewer than three different sizes."""
    some = _small(steps)
    if len({size for _, size, _ in some}) < 3:
        return None
    found = linear_regression([math.log(size) for _, size, _ in some], [math.log(fall) for _, _, fall in some])
    return found.slope


def across(steps: Sequence[Mapping[str, Any]], low: int, high: int) -> float | None:
    """|log2| of the fall at the highest rank over that at the lowest, mean over equal alpha and rate."""
    by_arm = {(s["r"], s["alpha"], s["rate"]): s["before"] - s["after"] for s in steps}
    pairs = [(by_arm[low, a, rate], fall) for (r, a, rate), fall in by_arm.items() if r == high]
    small = [(one, other) for one, other in pairs if all(SMALL[0] <= fall <= SMALL[1] for fall in (one, other))]
    return mean(abs(math.log2(other / one)) for one, other in small) if small else None


def traded(bench: Bench, seed: int) -> float | None:
    """Relative gap of the last losses of (alpha, rate) and (TRADE x alpha, rate / TRADE), over runs that learned."""
    gaps = []
    for r in bench.scale.knob_ranks:
        ends = {
            (alpha, rate): _ends(bench, r, alpha, rate, seed)
            for alpha in bench.scale.knob_alphas
            for rate in bench.scale.knob_rates
        }
        for (alpha, rate), (start, end) in ends.items():
            _, other = ends.get((alpha * TRADE, rate / TRADE), (start, None))
            if end is not None and other is not None and max(end, other) < start:
                gaps.append(abs(other - end) / end)
    return mean(gaps) if gaps else None


def _ends(bench: Bench, r: int, alpha: float, rate: float, seed: int) -> tuple[float, float | None]:
    """Loss at the start and after the last step; None where it is no longer a number."""
    found = bench.get(knob_job(r, alpha, rate, seed))
    return found["start"], found["end"]


def told(bench: Bench) -> list[dict[str, Any]]:
    """Best rate by rank and alpha, and the mean loss by rate for the plot."""
    rows = []
    for r in bench.scale.knob_ranks:
        for alpha in bench.scale.knob_alphas:
            every = [losses_by_rate(bench, r, alpha, s) for s in range(bench.scale.seeds)]
            curve = [(rate, mean(e[rate] for e in every)) for rate in bench.scale.knob_rates]
            best = 2 ** mean(best_rate(e) for e in every)
            rows.append({"r": r, "alpha": alpha, "best rate": best, "alpha x best rate": alpha * best, "curve": curve})
    return rows
