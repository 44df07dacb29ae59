"""The arms on the small model: new facts learned by one method at one rate, and what became of the old ones. X2, X3, X6
and X8 read them.
"""

import math
from statistics import mean
from typing import Any

from benchmarks.lesson.arms import ALPHA
from benchmarks.lesson.codes import BITS, PAD, fresh, old_and_new, rows_of, save
from benchmarks.lesson.jobs import Bench, Job
from benchmarks.lesson.training import carried_out, config_of, mean_loss
from rankwise.files import publish_folder
from rankwise.model.adapterproducts import live_products
from rankwise.model.attach import attach, trainable_params
from rankwise.model.likelihood import row_reads
from rankwise.model.load import load_base, quiet_transformers
from rankwise.model.products import singular_values
from rankwise.text.masks import Encoded

PRETRAIN_RATE = 3e-3
ASKED_AGAIN = 256  # of the old facts
BASE = ("old_facts", "old_epochs", "fact_batch")
FACTS = (*BASE, "epochs")


def small_base_job(seed: int) -> Job:
    return Job("base", {"seed": seed})


def pretrain(bench: Bench, job: Job) -> dict[str, Any]:
    """The small model, trained in full on the old facts."""
    seed, scale = job.of["seed"], bench.scale
    folder = fresh(bench.folder(job), seed)
    old, _ = old_and_new(seed, scale.old_facts, 0)
    model = load_base(folder, dtype="fp32")
    _, found = _learned(bench, model, rows_of(old), "full", None, PRETRAIN_RATE, seed, scale.old_epochs)
    save(model, folder)
    return found


def _learned(
    bench: Bench, model: Any, rows: list[Encoded], method: str, r: int | None, rate: float, seed: int, epochs: int
) -> tuple[Any, dict[str, Any]]:
    """(the model with the method attached and trained on all of `rows` for `epochs`, what it stored of them); the rate
    falls as a cosine.
    """
    batch = min(bench.scale.fact_batch, len(rows))
    steps = max(1, epochs * len(rows) // batch)
    own = {"r": r, "alpha": ALPHA} if method == "lora" else {}
    config = config_of(method, rate, steps, seed, batch, lr_scheduler_type="cosine", **own)
    attached = attach(model, config)
    carried_out(attached, rows, config, pad_token_id=PAD, breathe=bench.breathe, by_document=False)
    return attached, {"trained_params": trainable_params(attached), "steps": steps, **read(attached, rows)}


def read(model: Any, rows: list[Encoded]) -> dict[str, Any]:
    """What a model has stored of rows: bits beyond guessing, and the share that greedy decoding gets wholly right."""
    found = row_reads(model, rows)
    nats = sum(row.loss for row in found)
    return {
        "bits": len(rows) * BITS - nats / math.log(2),
        "recall": mean(all(row.right) for row in found),
        "rows": len(rows),
    }


# -- new facts ------------------------------------------------------------------------------------------------


def facts_job(method: str, r: int | None, rate: float, seed: int, count: int) -> Job:
    return Job("facts", {"method": method, "r": r or 0, "rate": rate, "seed": seed, "facts": count})


def facts_jobs(bench: Bench) -> list[Job]:
    """By set and method: each rate on the first seed, and on the others the one that was best there."""
    scale = bench.scale
    arms = [("full", None), *(("lora", r) for r in scale.ranks)]
    sweep = [
        facts_job(method, r, rate, 0, count)
        for count in scale.facts
        for method, r in arms
        for rate in fact_rates(bench, method)
    ]
    others = [
        chosen_facts_job(bench, method, r, seed, count)
        for seed in range(1, scale.seeds)
        for count in scale.facts
        for method, r in arms
    ]
    return sweep + others


def fact_rates(bench: Bench, method: str) -> tuple[float, ...]:
    return bench.scale.fact_full_rates if method == "full" else bench.scale.fact_lora_rates


def chosen_facts_job(bench: Bench, method: str, r: int | None, seed: int, count: int) -> Job:
    """The arm whose rate is chosen once the first seed's are trained."""
    rates = list(fact_rates(bench, method))
    return Job("bestfacts", {"method": method, "r": r or 0, "seed": seed, "facts": count, "rates": rates})


def learn_chosen(bench: Bench, job: Job) -> dict[str, Any]:
    """As `learn_facts`, with the rate that was chosen."""
    arm, found = best_facts(bench, job.of["method"], job.of["r"] or None, job.of["seed"], job.of["facts"])
    return {"rate": arm.of["rate"], **found}


def learn_facts(bench: Bench, job: Job) -> dict[str, Any]:
    """New facts on the pretrained model, which is not shown the old ones again; its weights are kept."""
    of, scale = job.of, bench.scale
    old, new = old_and_new(of["seed"], scale.old_facts, of["facts"])
    model = small_base(bench, of["seed"])
    asked_again = rows_of(old[:ASKED_AGAIN])
    before = read(model, asked_again)["recall"]
    rows = rows_of(new)
    tuned, found = _learned(bench, model, rows, of["method"], of["r"] or None, of["rate"], of["seed"], scale.epochs)
    with publish_folder(bench.folder(job)) as place, quiet_transformers():
        tuned.save_pretrained(place)
    again = read(tuned, asked_again)
    return {
        **found,
        "bits_per_param": found["bits"] / found["trained_params"],
        "wanted_bits": len(rows) * BITS,
        "old_recall_before": before,
        "old_recall": again["recall"],
    }


def small_base(bench: Bench, seed: int) -> Any:
    """The pretrained model."""
    return load_base(bench.weights(small_base_job(seed)), dtype="fp32")


def best_facts(bench: Bench, method: str, r: int | None, seed: int, count: int) -> tuple[Job, dict[str, Any]]:
    """The arm of the rate that stored most on the first seed. What is memorised has no held-out part, and how much can
    be stored is a maximum over rates by what it means.
    """

    def bits(rate: float) -> float:
        return float(bench.get(facts_job(method, r, rate, 0, count))["bits"])

    job = facts_job(method, r, max(fact_rates(bench, method), key=bits), seed, count)
    return job, bench.get(job)


# -- the grid of X6 -------------------------------------------------------------------------------------------


def knob_job(r: int, alpha: float, rate: float, seed: int) -> Job:
    return Job("knob", {"r": r, "alpha": alpha, "rate": rate, "seed": seed})


def turn(bench: Bench, job: Job) -> dict[str, Any]:
    """A few steps on the smallest set of facts at one rank, alpha and constant rate; its loss at both ends."""
    of, scale = job.of, bench.scale
    _, new = old_and_new(of["seed"], scale.old_facts, scale.facts[0])
    rows = rows_of(new)
    model = small_base(bench, of["seed"])
    batch = min(scale.fact_batch, len(rows))
    config = config_of("lora", of["rate"], scale.knob_steps, of["seed"], batch, of["r"], of["alpha"])
    attached = attach(model, config)
    trained = carried_out(
        attached,
        rows,
        config,
        pad_token_id=PAD,
        looks=(0, scale.knob_steps),
        look=lambda step: {"loss": mean_loss(attached, rows)},
        breathe=bench.breathe,
        by_document=False,
    )
    squares = sum(float((singular_values(p).product ** 2).sum()) for p in live_products(attached))
    start, end = (look["loss"] for look in trained.looks)
    return {"start": start, "end": end, "losses": trained.losses, "norm": squares**0.5}
