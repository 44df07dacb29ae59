"""X5: is a merge lossless, and as fast as the base? X1's adapter of rank 8, folded into its base by the product's own
merge in fp32 and in bf16, unmerged again, and timed.
"""

import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from benchmarks.lesson.arms import arm_jobs, base_folder, chosen_arm, plain, restored, split, written_job
from benchmarks.lesson.jobs import Bench, Job
from benchmarks.lesson.lists import ROOM, Item, conversations, encoded
from benchmarks.lesson.number import Numbers, of_seeds
from rankwise.export.merge import fold
from rankwise.model.generate import answer
from rankwise.model.likelihood import evaluating, final_logits
from rankwise.model.load import load_base
from rankwise.step import collate

RANK = 8
ROWS = 16  # of which logits are compared, each at its beginning, in its middle and near its end
USES = ("rounds",)


def merge_job(bench: Bench, seed: int) -> Job:
    return Job("merge", {"seed": seed, "rates": list(bench.scale.lora_rates)})


def jobs(bench: Bench) -> list[Job]:
    arms = [job for job in arm_jobs(bench) if job.of["r"] == RANK]
    return [written_job(), *arms, *(merge_job(bench, s) for s in range(bench.scale.seeds))]


def merged(bench: Bench, job: Job) -> dict[str, Any]:
    """Differences of the merged models, and seconds of a forward pass of each."""
    seed = job.of["seed"]
    arm = chosen_arm(bench, "lora", RANK, seed)
    test = split(bench, seed).test
    adapted = restored(bench, arm)
    with tempfile.TemporaryDirectory(dir=bench.work) as place:
        folds = {
            d: fold(base_folder(), bench.weights(arm), Path(place) / d, dtype=d, rounding="nearest")
            for d in ("fp32", "bf16")
        }
        models = {d: load_base(folder, dtype="fp32") for d, folder in folds.items()}
    found = _differences(adapted, models, test) | _flips(adapted, models["bf16"], test)
    bench.breathe()
    three = {"base": load_base(base_folder(), dtype="fp32"), "merged": models["fp32"], "unmerged": adapted}
    return {**found, "seconds": _seconds(three, test, bench), "unmerge": _unmerged(adapted)}


def _differences(adapted: Any, models: dict[str, Any], test: list[Item]) -> dict[str, float]:
    rows = encoded(test[:ROWS], plain())
    prompts = [row.ids[: len(row.ids) - back] for row in rows for back in (2, row.supervised // 2, row.supervised)]
    wanted = final_logits(adapted, prompts)
    found = {}
    for name, model in models.items():
        logits = final_logits(model, prompts)
        found[f"{name}_logits"] = float((logits - wanted).abs().max())
        found[f"{name}_kl"] = _kl(wanted, logits)
    return found


def _kl(one: torch.Tensor, other: torch.Tensor) -> float:
    """KL(one || other) in nats, mean over rows of logits."""
    logs = one.double().log_softmax(-1)
    return float((logs.exp() * (logs - other.double().log_softmax(-1))).sum(-1).mean())


def _flips(adapted: Any, rounded: Any, test: list[Item]) -> dict[str, int]:
    """Test items that only one of the two answers exactly, both in fp32 arithmetic."""
    said = [answer(model, plain(), conversations(test), ROOM) for model in (adapted, rounded)]
    right = [[text == item.answer for text, item in zip(texts, test, strict=True)] for texts in said]
    return {"flips": sum(a != b for a, b in zip(*right, strict=True)), "items": len(test)}


def _seconds(models: dict[str, Any], test: list[Item], bench: Bench) -> dict[str, float]:
    """Median processor seconds of a forward pass over six rows; the models take turns."""
    rows = encoded(test[:6], plain())
    batch = collate([row.ids for row in rows], [row.labels for row in rows], plain().eos_token_id)
    spent: dict[str, list[float]] = {name: [] for name in models}
    for number in range(bench.scale.rounds + 1):
        bench.breathe()
        for name, model in models.items():
            with evaluating(model):
                began = time.process_time()
                model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, logits_to_keep=1, use_cache=False)
                if number:  # the first pass of each warms up
                    spent[name].append(time.process_time() - began)
    return {name: median(values) for name, values in spent.items()}


def _unmerged(adapted: Any) -> float:
    """Largest difference of a weight of the base after its adapter was merged in place and taken out again."""
    layers = [m.base_layer.weight for m in adapted.modules() if hasattr(m, "base_layer")]
    before = [weight.detach().clone() for weight in layers]
    adapted.merge_adapter()
    adapted.unmerge_adapter()
    return max(float((weight - old).abs().max()) for weight, old in zip(layers, before, strict=True))


def measured(bench: Bench) -> Numbers:
    found = [bench.get(merge_job(bench, s)) for s in range(bench.scale.seeds)]
    plainly = {name: of_seeds([f[name] for f in found]) for name in ("fp32_logits", "bf16_logits", "flips", "unmerge")}
    return plainly | {
        f"{name}_time": of_seeds([f["seconds"][name] / f["seconds"]["base"] for f in found])
        for name in ("merged", "unmerged")
    }


def told(bench: Bench) -> list[dict[str, Any]]:
    """By seed, for the table."""
    found = [bench.get(merge_job(bench, s)) for s in range(bench.scale.seeds)]
    kl = {f"KL of {d}, nats": mean(f[f"{d}_kl"] for f in found) for d in ("fp32", "bf16")}
    return [kl | {f"{n}, processor s a pass": mean(f["seconds"][n] for f in found) for n in found[0]["seconds"]}]
