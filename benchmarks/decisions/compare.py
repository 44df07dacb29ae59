"""Rows and metrics: agreement, regret, intervals, and each baseline against us case by case."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scipy.stats import binomtest

from benchmarks.decisions.call import Call
from benchmarks.decisions.case import RUNGS, Arm, Case, Source
from benchmarks.decisions.standing import standing

Row = Mapping[str, Any]
OURS = "ours"


def judged(case: Case, call: Call) -> dict[str, Any]:
    """One call on one case: the arm that stands for it, agreement, regret and thrift.

    `regret` is in the metric's unit, None where no eligible arm stands for the call. `regret_noise` is in units of the
    95 % gap between that arm and the best; without such an arm it is the worst eligible arm's, at least 1.
    `thrift`: no winner trains less (a rung nothing, an adapter its own parameters, full everything); None for a miss.
    """
    stands = standing(case, call)
    arm = next((arm for arm in case.arms if arm.name == stands.arm), None)
    if arm is None or not case.within(arm):
        agree, regret, noises = False, None, max([1.0, *(noise_units(case, other) for other in case.eligible())])
    else:
        agree, regret, noises = case.wins(arm), case.behind(arm), noise_units(case, arm)
    return {
        "call": call.said,
        "arm": stands.arm,
        "how": stands.how,
        "agree": agree,
        "regret": regret,
        "regret_noise": noises,
        "thrift": arm is not None and cost(arm) <= min(map(cost, case.winners())) if agree else None,
        "why": None if agree else why(case, arm, stands.how),
    }


def noise_units(case: Case, arm: Arm) -> float:
    """How far behind the best, in units of the noise between the two."""
    behind = case.behind(arm)
    return behind / case.gap(arm) if behind else 0.0


def cost(arm: Arm) -> int:
    """0 nothing is trained, 1 an adapter, 2 the model."""
    return 0 if arm.method in RUNGS else 2 if arm.method == "full" else 1


def why(case: Case, arm: Arm | None, how: str) -> str:
    """What went wrong, with the figures."""
    best = case.best()
    against = f"best: {best.name}, {best.score:g}"
    if arm is None:
        return f"{how}; {against}"
    if not arm.fits:
        return f"{arm.name} did not run: {arm.why_not}; {against}"
    if not case.within(arm):
        return f"{arm.name} breaks the budget; {against}"
    return f"{arm.name}, {arm.score:g}: {case.behind(arm):.3g} behind, noise {case.gap(arm):.3g}; {against}"


def row(source: Source, case: Case, calls: Mapping[str, Call]) -> dict[str, Any]:
    """Everything about one case that the result keeps."""
    best = case.best()
    return {
        "id": case.id,
        "source": source.id,
        "held_out": source.held_out,
        "evidence": source.evidence,
        "read": source.read,
        "title": case.title,
        "metric": case.metric,
        "decisive": case.decisive,
        "best": best.name,
        "best_score": best.score,
        "winners": [arm.name for arm in case.winners()],
        "calls": {name: judged(case, call) for name, call in calls.items()},
    }


def metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Flat figures by name; for the baselines with their name behind."""
    held = [of for of in rows if of["held_out"]]
    tuned = [of for of in rows if not of["held_out"]]
    found: dict[str, float] = {
        "cases": len(rows),
        "sources": len({of["source"] for of in rows}),
        "cases_held_out": len(held),
        "cases_decisive": sum(of["decisive"] for of in rows),
    }
    for name in rows[0]["calls"]:
        end = "" if name == OURS else f"_{name}"
        found |= shares(rows, name, f"agreement{end}")
        found |= shares(held, name, f"agreement_held_out{end}")
        found |= shares(tuned, name, f"agreement_tuned{end}")
        found |= shares([of for of in rows if of["decisive"]], name, f"agreement_decisive{end}")
        found |= shares([of for of in held if of["decisive"]], name, f"agreement_decisive_held_out{end}")
        found |= shares([of for of in rows if not of["evidence"]], name, f"agreement_not_in_evidence{end}")
        found[f"agreement_mean_of_sources{end}"] = mean_of_sources(rows, name)
        found[f"mean_regret_noise{end}"] = mean(of["calls"][name]["regret_noise"] for of in rows)
        if held:
            found[f"mean_regret_noise_held_out{end}"] = mean(of["calls"][name]["regret_noise"] for of in held)
        if agreed := [of["calls"][name]["thrift"] for of in rows if of["calls"][name]["agree"]]:
            found[f"thrift{end}"] = mean(agreed)
        if name != OURS:
            found |= against(rows, name)
    return found


def shares(rows: Sequence[Row], name: str, metric: str) -> dict[str, float]:
    """Share of agreement with its Wilson 95 % interval; nothing for no rows."""
    if not rows:
        return {}
    agreed = sum(of["calls"][name]["agree"] for of in rows)
    interval = binomtest(agreed, len(rows)).proportion_ci(method="wilson")
    return {metric: agreed / len(rows), f"{metric}_low": float(interval.low), f"{metric}_high": float(interval.high)}


def mean_of_sources(rows: Sequence[Row], name: str) -> float:
    """Agreement where every source counts the same, whatever its number of cases."""
    by: defaultdict[str, list[bool]] = defaultdict(list)
    for of in rows:
        by[of["source"]].append(of["calls"][name]["agree"])
    return mean(mean(agreed) for agreed in by.values())


def against(rows: Sequence[Row], name: str) -> dict[str, float]:
    """Cases that only we, and that only the baseline got right; the exact two-sided McNemar test of a difference."""
    ours = sum(of["calls"][OURS]["agree"] and not of["calls"][name]["agree"] for of in rows)
    theirs = sum(of["calls"][name]["agree"] and not of["calls"][OURS]["agree"] for of in rows)
    p = float(binomtest(ours, ours + theirs).pvalue) if ours + theirs else 1.0
    return {f"only_ours_against_{name}": ours, f"only_{name}": theirs, f"p_against_{name}": p}


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean of at least one value."""
    found = list(values)
    return sum(found) / len(found)
