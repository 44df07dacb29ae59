"""X2: do new facts need capacity? A small model that knows facts learns random new ones by adapters of several ranks
and in full; what is counted are bits beyond guessing.
"""

from statistics import mean
from typing import Any

from benchmarks.lesson.jobs import Bench, Job
from benchmarks.lesson.number import Numbers, of_seeds
from benchmarks.lesson.stored import best_facts, facts_jobs, small_base_job


def jobs(bench: Bench) -> list[Job]:
    return [*(small_base_job(s) for s in range(bench.scale.seeds)), *facts_jobs(bench)]


def measured(bench: Bench) -> Numbers:
    scale = bench.scale
    seeds, most, ranks = range(scale.seeds), max(scale.facts), sorted(scale.ranks)
    before = sorted(scale.facts)[-2]
    middle = 4 if 4 in ranks else ranks[-1]

    def found(r: int, seed: int, count: int) -> dict[str, Any]:
        return best_facts(bench, "lora", r, seed, count)[1]

    return {
        "rank_1_share": of_seeds([found(1, s, most)["bits"] / found(ranks[-1], s, most)["bits"] for s in seeds]),
        "bits_per_parameter": of_seeds(
            [max(found(r, s, n)["bits_per_param"] for r in ranks for n in scale.facts) for s in seeds]
        ),
        "saturation": of_seeds([found(middle, s, most)["bits"] / found(middle, s, before)["bits"] for s in seeds]),
        "small_set": of_seeds([found(middle, s, min(scale.facts))["recall"] for s in seeds]),
    }


def told(bench: Bench) -> list[dict[str, Any]]:
    """Means over seeds, for the table and the plot."""
    scale = bench.scale
    return [
        _row(bench, name, method, r, count)
        for name, method, r in (*((f"LoRA r={r}", "lora", r) for r in sorted(scale.ranks)), ("full", "full", None))
        for count in scale.facts
    ]


def _row(bench: Bench, name: str, method: str, r: int | None, count: int) -> dict[str, Any]:
    found = [best_facts(bench, method, r, s, count) for s in range(bench.scale.seeds)]
    arms = [arm for _, arm in found]
    return {
        "arm": name,
        "rate": found[0][0].of["rate"],
        "facts": count,
        "bits asked": arms[0]["wanted_bits"],
        "bits stored": mean(a["bits"] for a in arms),
        "recalled, %": 100 * mean(a["recall"] for a in arms),
        "bits a trained parameter": mean(a["bits_per_param"] for a in arms),
        "old facts recalled before, %": 100 * mean(a["old_recall_before"] for a in arms),
        "old facts recalled after, %": 100 * mean(a["old_recall"] for a in arms),
    }
