"""X1: is a format learned as well at rank 1 as by full fine-tuning? Lists in words are written as JSON; each arm has
the rate that its held-out lists chose, and the test lists are asked once.
"""

from typing import Any

from benchmarks.lesson.arms import LORA_RANKS, arm_jobs, base_arm, chosen_exam_job, exam_job, rates_of, written_job
from benchmarks.lesson.jobs import Bench, Job
from benchmarks.lesson.number import Number, Numbers, of_items

FULL = ("full", None)


def jobs(bench: Bench) -> list[Job]:
    seeds = range(bench.scale.seeds)
    exams = [exam(bench, method, r, s) for s in seeds for method, r in (FULL, *(("lora", r) for r in LORA_RANKS))]
    return [written_job(), *arm_jobs(bench), *(exam_job(base_arm(s)) for s in seeds), *exams]


def exam(bench: Bench, method: str, r: int | None, seed: int) -> Job:
    return chosen_exam_job(method, r, seed, rates_of(bench, method))


def right(bench: Bench, method: str, r: int | None) -> list[list[bool]]:
    """Of each seed, of each test item: was it answered exactly?"""
    return [bench.get(exam(bench, method, r, s))["right"] for s in range(bench.scale.seeds)]


def measured(bench: Bench) -> Numbers:
    full = right(bench, *FULL)

    def gap(r: int) -> Number:
        return of_items(right(bench, "lora", r), full)

    return {f"rank_{r}": gap(r) for r in LORA_RANKS}


def told(bench: Bench) -> list[dict[str, Any]]:
    """Means over seeds, for the table."""
    rows = []
    for name, method, r in (("full", "full", None), *((f"LoRA r={r}", "lora", r) for r in LORA_RANKS)):
        found = [bench.get(exam(bench, method, r, s)) for s in range(bench.scale.seeds)]
        rows.append(_row(name, found, found[0]["rate"]))
    return [_row("base", [bench.get(exam_job(base_arm(s))) for s in range(bench.scale.seeds)], None), *rows]


def _row(name: str, found: list[dict[str, Any]], rate: float | None) -> dict[str, Any]:
    items = [one for exam_ in found for one in exam_["right"]]
    nll = sum(exam_["nll"] for exam_ in found) / len(found)
    return {"arm": name, "rate": rate, "exact match, %": 100 * sum(items) / len(items), "loss, nats a token": nll}
