"""X4: does mixing in general rows cut forgetting? The arm that was foreseen to forget most, rank 1 at the high rate,
with rows that the base wrote as 0, 1, 5 and 25 % of its supervised tokens, at equal tokens in all.
"""

from itertools import pairwise
from statistics import mean
from typing import Any

from benchmarks.lesson.arms import arm_job, exam_job, written_job
from benchmarks.lesson.jobs import Bench, Job
from benchmarks.lesson.number import Numbers, of_items, of_seeds

LITTLE, MUCH = 0.05, 0.25


def arm(bench: Bench, seed: int, share: float) -> Job:
    return arm_job("lora", 1, max(bench.scale.lora_rates), seed, share)


def jobs(bench: Bench) -> list[Job]:
    arms = [arm(bench, s, share) for s in range(bench.scale.seeds) for share in (0.0, *bench.scale.shares)]
    return [written_job(), *arms, *map(exam_job, arms)]


def rise(bench: Bench, seed: int, share: float) -> float:
    """Of the general loss, from the base to the end."""
    start = bench.get(arm(bench, seed, 0.0))["looks"][0]["general"]
    looks = bench.get(arm(bench, seed, share))["looks"]
    end = max((look for look in looks if look["step"] <= bench.scale.steps or share), key=lambda look: look["step"])
    return float(end["general"] - start)


def cut(bench: Bench, seed: int, share: float) -> float:
    """Share of the rise without replay that replay removes."""
    return 1 - rise(bench, seed, share) / rise(bench, seed, 0.0)


def measured(bench: Bench) -> Numbers:
    seeds, shares = range(bench.scale.seeds), (0.0, *sorted(bench.scale.shares))
    steps = list(pairwise(shares))

    def right(share: float) -> list[list[bool]]:
        return [bench.get(exam_job(arm(bench, s, share)))["right"] for s in seeds]

    return {
        "quarter": of_seeds([cut(bench, s, MUCH) for s in seeds]),
        "monotone": of_seeds([min(rise(bench, s, a) - rise(bench, s, b) for a, b in steps) for s in seeds]),
        "twentieth": of_seeds([cut(bench, s, LITTLE) for s in seeds]),
        "cost": of_items(right(0.0), right(LITTLE)),
    }


def told(bench: Bench) -> list[dict[str, Any]]:
    """Means over seeds, for the table and the plot."""
    rows = []
    for share in (0.0, *sorted(bench.scale.shares)):
        seeds = range(bench.scale.seeds)
        arms = [bench.get(arm(bench, s, share)) for s in seeds]
        exams = [bench.get(exam_job(arm(bench, s, share))) for s in seeds]
        rows.append(
            {
                "share asked, %": 100 * share,
                "share of supervised tokens, %": 100 * mean(a["replay_share"] for a in arms),
                "rows of the base": mean(a["replay_rows"] for a in arms),
                "rise of the general loss, nats a token": mean(rise(bench, s, share) for s in seeds),
                "exact match, %": 100 * mean(sum(e["right"]) / len(e["right"]) for e in exams),
                "test loss, nats a token": mean(e["nll"] for e in exams),
            }
        )
    return rows
