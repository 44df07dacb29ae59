"""What came of the jobs -> result.json: outcomes by the rules that stood before, and every raw row."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from benchmarks.lesson import (
    x1_format,
    x2_facts,
    x3_forgetting,
    x4_replay,
    x5_merge,
    x6_alpha,
    x7_flops,
    x8_spectrum,
)
from benchmarks.lesson.jobs import WAY, Bench, Job, NotRun
from benchmarks.lesson.number import Number
from benchmarks.lesson.predictions import Measure, Prediction, Predictions
from benchmarks.lesson.verdict import judge, together
from benchmarks.memory.bench import commit, machine, versions

EXPERIMENTS: Mapping[str, ModuleType] = {
    "X1": x1_format,
    "X2": x2_facts,
    "X3": x3_forgetting,
    "X4": x4_replay,
    "X5": x5_merge,
    "X6": x6_alpha,
    "X7": x7_flops,
    "X8": x8_spectrum,
}


def jobs_of(bench: Bench, names: Sequence[str]) -> list[Job]:
    """Of these experiments, each once, those that others wait for first."""
    every = [job for name in names for job in EXPERIMENTS[name].jobs(bench)]
    order = list(bench.kinds)
    once = {bench.name(job): job for job in every}
    return sorted(once.values(), key=lambda job: (order.index(job.kind), job.of.get("seed", -1)))


def result_of(bench: Bench, predictions: Predictions) -> dict[str, Any]:
    """Everything that result.json holds; what has not run is listed as missing, never guessed."""
    found = {name: experiment(bench, name, said) for name, said in predictions.of.items()}
    counts = Counter(one["outcome"] for one in found.values() if bench.scale.counted)
    outcomes = ("confirmed", "refuted", "cannot tell", "not run")
    return {
        "metrics": {outcome.replace(" ", "_"): counts[outcome] for outcome in outcomes},
        "counted": bench.scale.counted,
        "predictions": {"written": predictions.written, "sha256": predictions.hash},
        "sizes": bench.scale.sizes(),
        "way": WAY,
        "experiments": found,
        "rows": rows(bench),
        "commit": commit(),
        "versions": versions({}),
        "machine": machine(),
    }


def experiment(bench: Bench, name: str, said: Prediction) -> dict[str, Any]:
    """The outcome of one, with each number that was judged."""
    module, all_jobs = EXPERIMENTS[name], EXPERIMENTS[name].jobs(bench)
    missing = sorted(bench.name(job) for job in all_jobs if bench.kept(job) is None)
    told = {"title": said.title, "claim": said.claim, "lesson": said.lesson, "literature": said.literature}
    told |= {"expected": said.expected, "predicted": said.predicted, "missing": missing}
    try:
        if missing:
            raise NotRun(missing[0])
        numbers, table = module.measured(bench), module.told(bench)
    except NotRun:
        return {**told, "outcome": "not run", "tests": {}, "table": []}
    tests = {key: judged(measure, numbers.get(key)) for key, measure in said.tests.items()}
    deciding = [tests[key]["outcome"] for key, measure in said.tests.items() if measure.headline]
    return {**told, "outcome": together(deciding), "tests": tests, "table": table}


def judged(measure: Measure, number: Number | None) -> dict[str, Any]:
    """One number beside its rule."""
    known = measure.said | {"values": [], "interval": None, "outcome": "cannot tell"}
    if number is None or not number.values:
        return known
    outcome = judge(measure.rule, number.values, number.interval)
    return known | {"values": number.values, "interval": number.interval, "outcome": outcome}


def rows(bench: Bench) -> list[dict[str, Any]]:
    """Of every job that was done what it found, when, how long it took and under which predictions."""
    found = [bench.record(job) for job in jobs_of(bench, list(EXPERIMENTS))]
    return [record for record in found if record is not None]
