"""X8: how many directions does a difference need? Spectra of what training changed on the format (X1) and on facts
(X2), and what is left of the task when full fine-tuning's difference is cut to its strongest directions.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from benchmarks.lesson.arms import arm_jobs, base_folder, chosen_arm, examined, restored, written_job
from benchmarks.lesson.codes import old_and_new, rows_of
from benchmarks.lesson.jobs import Bench, Job
from benchmarks.lesson.number import Numbers, of_seeds
from benchmarks.lesson.stored import (
    best_facts,
    facts_jobs,
    read,
    small_base_job,
)
from rankwise.model.adapterproducts import AdapterFolder
from rankwise.model.load import load_base
from rankwise.model.products import singular_values
from rankwise.records import ModuleSpectrum
from rankwise.watch.directions import Base, strongest
from rankwise.watch.spectrum import directions_under, product_spectrum, whole_spectrum

ENERGY = 0.9
KEPT = 0.95  # of the quality of the whole difference
FORMAT_CUTS = (1, 2, 4, 8, 16)  # of the embedded model, where looking takes longer
FORMAT_RANK = 8
WHATS = ("format in full", "format by LoRA", "facts in full", "facts by LoRA")
USES = ("cuts",)


def spectrum_job(bench: Bench, what: str, seed: int) -> Job:
    """`rates`: of which the arm's was chosen."""
    scale = bench.scale
    rates = [*scale.full_rates, *scale.lora_rates, *scale.fact_full_rates, *scale.fact_lora_rates]
    return Job("spectrum", {"what": what, "seed": seed, "rates": rates, "facts": max(scale.facts)})


def jobs(bench: Bench) -> list[Job]:
    seeds = range(bench.scale.seeds)
    arms = [job for job in arm_jobs(bench) if job.of["r"] in (0, FORMAT_RANK)]
    ranks = (0, max(bench.scale.ranks))
    facts = [j for j in facts_jobs(bench) if j.of["facts"] == max(bench.scale.facts) and j.of["r"] in ranks]
    small = [*(small_base_job(s) for s in seeds), *facts]
    return [written_job(), *arms, *small, *(spectrum_job(bench, what, s) for what in WHATS for s in seeds)]


def seen(bench: Bench, job: Job) -> dict[str, Any]:
    """Spectra, and for what was trained in full the quality by rank."""
    what, seed = job.of["what"], job.of["seed"]
    count, most = job.of["facts"], max(bench.scale.ranks)
    if what == "format in full":
        arm = chosen_arm(bench, "full", None, seed)
        model = restored(bench, arm)
        return _whole(bench, model, bench.weights(arm), base_folder(), FORMAT_CUTS, lambda: _format(bench, model, seed))
    if what == "format by LoRA":
        return _product(bench.weights(chosen_arm(bench, "lora", FORMAT_RANK, seed)), base_folder())
    base = bench.weights(small_base_job(seed))
    if what == "facts by LoRA":
        return _product(bench.weights(best_facts(bench, "lora", most, seed, count)[0]), base)
    arm = best_facts(bench, "full", None, seed, count)[0]
    rows = rows_of(old_and_new(seed, bench.scale.old_facts, count)[1])
    small = load_base(bench.weights(arm), dtype="fp32")
    return _whole(bench, small, bench.weights(arm), base, bench.scale.cuts, lambda: read(small, rows)["recall"])


def _format(bench: Bench, model: Any, seed: int) -> float:
    right = examined(bench, model, seed)["right"]
    return sum(right) / len(right)


def _whole(
    bench: Bench, model: Any, tuned: Path, base: Path, cuts: Sequence[int], quality: Callable[[], float]
) -> dict[str, Any]:
    """Of two folders of weights; `model` is the tuned one, loaded, and is cut in place."""
    before, after = Base(base), Base(tuned)
    names = [name for name, shape in after.shapes.items() if len(shape) == 2]
    modules, changes = [], {}
    for name in names:
        bench.breathe()
        change = after.tensor(name).float() - before.tensor(name).float()
        left, _, _ = strongest(change, min(max(cuts), min(change.shape)))
        changes[name] = (change, left)
        if "layers." in name:
            spectrum = whole_spectrum(name.removesuffix(".weight"), after.tensor(name), before)
            assert spectrum is not None
            modules.append(_module(spectrum, _directions(torch.linalg.svdvals(change))))
    found = {"modules": modules, "whole": quality(), "cut": {}}
    for cut in sorted(cuts, reverse=True):
        bench.breathe()
        _cut(model, before, changes, cut)
        found["cut"][str(cut)] = quality()
    return found


def _cut(model: Any, base: Base, changes: Mapping[str, tuple[torch.Tensor, torch.Tensor]], rank: int) -> None:
    """Each matrix becomes that of the base plus the strongest directions of its change; norms stay as they are."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, (change, left) in changes.items():
            kept = left[:, :rank]
            parameters[name].copy_(base.tensor(name).float() + kept @ (kept.T @ change))


def _product(folder: Path, base: Path) -> dict[str, Any]:
    """Of an adapter's file."""
    return {"modules": list(_products(AdapterFolder.open(folder), Base(base)))}


def _products(adapter: AdapterFolder, weights: Base) -> Iterator[dict[str, Any]]:
    for product in adapter.products():
        spectrum = product_spectrum(product, directions_under(product, weights))
        yield _module(spectrum, _directions(singular_values(product).product))


def _module(spectrum: ModuleSpectrum, r90: int) -> dict[str, Any]:
    kept = ("module", "rank", "effective_rank", "norm_ratio", "intruders")
    return {name: getattr(spectrum, name) for name in kept} | {"r90": r90}


def _directions(values: torch.Tensor) -> int:
    """So many of the strongest hold ENERGY of the energy."""
    shares = (values.double() ** 2).cumsum(0) / (values.double() ** 2).sum()
    return int((shares < ENERGY).sum()) + 1


def needed(found: Mapping[str, Any]) -> float:
    """The fewest directions that keep KEPT of the quality; where no cut does, the next doubling of the largest."""
    enough = [int(cut) for cut, quality in found["cut"].items() if quality >= KEPT * found["whole"]]
    return min(enough, default=2 * max(map(int, found["cut"])))


def measured(bench: Bench) -> Numbers:
    seeds = range(bench.scale.seeds)
    by = {what: [bench.get(spectrum_job(bench, what, s)) for s in seeds] for what in WHATS}
    full, facts = by["format in full"], by["facts in full"]
    cut = str(max(FORMAT_CUTS))
    spread = zip(by["facts by LoRA"], by["format by LoRA"], strict=True)
    doublings = [math.log2(needed(a) / needed(b)) for a, b in zip(facts, full, strict=True)]
    return {
        "cut_16": of_seeds([100 * (f["whole"] - f["cut"][cut]) for f in full]),
        "facts_over_format": of_seeds(doublings),
        "r90_over_needed": of_seeds([median(m["r90"] for m in f["modules"]) / needed(f) for f in full]),
        "spread": of_seeds([_spread(a) - _spread(b) for a, b in spread]),
    }


def _spread(found: Mapping[str, Any]) -> float:
    """Median effective rank over r."""
    return median(m["effective_rank"] / m["rank"] for m in found["modules"] if m["effective_rank"] is not None)


def told(bench: Bench) -> list[dict[str, Any]]:
    """Means over seeds of the medians over matrices, and the quality by rank for the plot."""
    return [_row(what, [bench.get(spectrum_job(bench, what, s)) for s in range(bench.scale.seeds)]) for what in WHATS]


def _row(what: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    def middle(name: str) -> float:
        return mean(median(m[name] for m in f["modules"] if m[name] is not None) for f in found)

    row: dict[str, Any] = {
        "what": what,
        "rank": middle("rank"),
        "effective rank": middle("effective_rank"),
        "directions of 90 % of the energy": middle("r90"),
        "norm over the base's": middle("norm_ratio"),
        "intruders, all matrices": mean(sum(m["intruders"] or 0 for m in f["modules"]) for f in found),
    }
    if "cut" not in found[0]:
        return row | {"directions needed": None, "curve": []}
    cuts = sorted(map(int, found[0]["cut"]))
    kept = [(cut, mean(f["cut"][str(cut)] / max(f["whole"], 1e-9) for f in found)) for cut in cuts]
    return row | {"directions needed": mean(map(needed, found)), "curve": kept}
