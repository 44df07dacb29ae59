"""X3: does LoRA forget less? X1's arms at both rates, compared where they have learned equally much: rise of the loss
on text that the base wrote, at the same held-out loss of the task. And the small model's old facts after new ones.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import mean
from typing import Any

from benchmarks.lesson.arms import LORA_RANKS, arm_job, arm_jobs, at_end, chosen_arm, rates_of, written_job
from benchmarks.lesson.jobs import Bench, Job
from benchmarks.lesson.number import Numbers, of_seeds
from benchmarks.lesson.stored import best_facts, facts_jobs, small_base_job

LEVELS = 8  # of task loss, at which forgetting is compared
HIGHEST = 1.0  # nats a token: above it an arm has hardly begun to learn
Curve = list[tuple[float, float]]  # (held-out loss of the task, rise of the general loss) at each look


def jobs(bench: Bench) -> list[Job]:
    bases = [small_base_job(s) for s in range(bench.scale.seeds)]
    return [written_job(), *arm_jobs(bench), *bases, *_old_facts_jobs(bench)]


def _old_facts_jobs(bench: Bench) -> list[Job]:
    wanted = (0, max(bench.scale.ranks))
    return [j for j in facts_jobs(bench) if j.of["facts"] == max(bench.scale.facts) and j.of["r"] in wanted]


def curve(found: dict[str, Any]) -> Curve:
    start = found["looks"][0]["general"]
    return [(look["dev"], look["general"] - start) for look in found["looks"]]


def rise_at(points: Curve, level: float) -> float | None:
    """Forgetting where the task's loss first falls to `level`, between two looks on a straight line over ln(loss)."""
    for (dev, rise), (next_dev, next_rise) in pairwise(points):
        if next_dev <= level <= dev:
            part = math.log(dev / level) / math.log(dev / next_dev) if dev > next_dev else 1.0
            return rise + part * (next_rise - rise)
    return None


def levels(*sides: Sequence[Curve]) -> list[float]:
    """Losses that some curve of every side reaches, evenly spread over their logarithm."""
    lowest = max(min(dev for points in side for dev, _ in points) for side in sides)
    highest = min(HIGHEST, *(points[0][0] for side in sides for points in side))
    if lowest >= highest:
        return [lowest]
    step = math.log(highest / lowest) / (LEVELS - 1)
    return [min(highest, max(lowest, highest * math.exp(-step * n))) for n in range(LEVELS)]


def frontier(side: Sequence[Curve], level: float) -> float:
    """The least forgetting at which any of the curves reaches `level`."""
    return min(rise for points in side if (rise := rise_at(points, level)) is not None)


def gap(first: Sequence[Curve], second: Sequence[Curve]) -> float:
    """Forgetting of the first side minus that of the second, mean over the levels that both reach."""
    return mean(frontier(first, level) - frontier(second, level) for level in levels(first, second))


class Curves:
    """The curves of one seed."""

    def __init__(self, bench: Bench, seed: int):
        self.bench, self.seed = bench, seed

    def of(self, method: str, r: int | None, rate: float) -> Curve:
        return curve(self.bench.get(arm_job(method, r, rate, self.seed)))

    def side(self, method: str, ranks: Sequence[int | None]) -> list[Curve]:
        return [self.of(method, r, rate) for r in ranks for rate in rates_of(self.bench, method)]

    def by_method(self) -> float:
        """LoRA minus full."""
        return gap(self.side("lora", LORA_RANKS), self.side("full", [None]))

    def by_rank(self) -> float:
        """Rank 1 minus rank 8, at the same rate."""
        rates = rates_of(self.bench, "lora")
        return mean(gap([self.of("lora", 1, rate)], [self.of("lora", 8, rate)]) for rate in rates)

    def by_rate(self) -> float:
        """The highest rate minus the lowest, of the same arm."""
        arms = (("full", None), *(("lora", r) for r in LORA_RANKS))
        ends = [(m, r, max(rates_of(self.bench, m)), min(rates_of(self.bench, m))) for m, r in arms]
        return mean(gap([self.of(m, r, high)], [self.of(m, r, low)]) for m, r, high, low in ends)

    def end(self, method: str, r: int | None) -> float:
        """Rise at the end of the arm whose rate was chosen."""
        found = self.bench.get(chosen_arm(self.bench, method, r, self.seed))
        return float(at_end(self.bench, found)["general"] - found["looks"][0]["general"])


def measured(bench: Bench) -> Numbers:
    every = [Curves(bench, seed) for seed in range(bench.scale.seeds)]
    return {
        "frontier": of_seeds([c.by_method() for c in every]),
        "end_point": of_seeds([c.end("lora", 8) - c.end("full", None) for c in every]),
        "frozen": of_seeds([c.end("lora", 8) for c in every]),
        "rate_over_rank": of_seeds([abs(c.by_rate()) - abs(c.by_rank()) for c in every]),
        "rank_over_method": of_seeds([abs(c.by_rank()) - abs(c.by_method()) for c in every]),
        "old_facts": of_seeds([_old_facts(bench, seed) for seed in range(bench.scale.seeds)]),
    }


def _old_facts(bench: Bench, seed: int) -> float:
    """In points, highest rank minus full."""
    most = max(bench.scale.facts)
    lora, full = (
        best_facts(bench, m, r, seed, most)[1]["old_recall"]
        for m, r in (("lora", max(bench.scale.ranks)), ("full", None))
    )
    return 100 * float(lora - full)


def told(bench: Bench) -> list[dict[str, Any]]:
    """Each arm at its end, means over seeds, and the curve of each seed for the plot."""
    arms = [("full", "full", None), *((f"LoRA r={r}", "lora", r) for r in LORA_RANKS)]
    return [_row(bench, name, method, r, rate) for name, method, r in arms for rate in rates_of(bench, method)]


def _row(bench: Bench, name: str, method: str, r: int | None, rate: float) -> dict[str, Any]:
    curves = [Curves(bench, seed).of(method, r, rate) for seed in range(bench.scale.seeds)]
    found = [bench.get(arm_job(method, r, rate, seed)) for seed in range(bench.scale.seeds)]
    ends = [(at_end(bench, f)["dev"], at_end(bench, f)["general"] - f["looks"][0]["general"]) for f in found]
    return {
        "arm": name,
        "rate": rate,
        "held-out loss, nats a token": mean(dev for dev, _ in ends),
        "rise of the general loss, nats a token": mean(rise for _, rise in ends),
        "curves": curves,
    }
