"""X7: are equal steps unfair? FLOPs of a step counted by torch's profiler and by the product's trace, and X1's arms
compared at equal steps, at equal FLOPs and by processor seconds.
"""

import math
from statistics import mean
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.lesson.arms import ALPHA, arm_job, arm_jobs, at_end, base_folder, chosen_arm, rates_of, written_job
from benchmarks.lesson.jobs import Bench, Job
from benchmarks.lesson.number import Number, Numbers, of_seeds
from rankwise.estimate.measured import RealStep
from rankwise.observe.model import observe_model
from rankwise.records.setup import Setup
from rankwise.trace import peaks

RANK = 8
LENGTH = 28  # tokens of a row of the format task
USES = ("batch",)


def flops_job() -> Job:
    return Job("flops", {"length": LENGTH, "r": RANK})


def jobs(bench: Bench) -> list[Job]:
    arms = [job for job in arm_jobs(bench) if job.of["r"] in (0, RANK)]
    return [flops_job(), written_job(), *arms]


def counted(bench: Bench, job: Job) -> dict[str, Any]:
    """Operations of a step: by torch's counter on a real step with eager attention, and as the trace predicts."""
    found = {}
    for method in ("full", "lora"):
        setup = Setup(
            config=observe_model("embedded").config,
            method=method,
            dtype="fp32",
            per_device_train_batch_size=bench.scale.batch,
            max_length=job.of["length"],
            labelled_share=0.5,
            attn_implementation="eager",
            loss="labelled",
            device="cpu",
            **({"r": job.of["r"], "lora_alpha": ALPHA, "target_modules": "all-linear"} if method == "lora" else {}),
        )
        traced = peaks.trace(setup).flops
        step = RealStep(setup, base_folder(), torch.device("cpu"))
        with FlopCounterMode(display=False) as counter:
            step.run()
        found[method] = {"counted": counter.get_total_flops(), "traced": traced["forward"] + traced["backward"]}
    return found


def measured(bench: Bench) -> Numbers:
    flops, seeds = bench.get(flops_job()), range(bench.scale.seeds)
    return {
        "flops_ratio": Number([flops["full"]["counted"] / flops["lora"]["counted"]], None),
        "traced": Number([flops["lora"]["traced"] / flops["lora"]["counted"]], None),
        "rate_over_rule": of_seeds([_rate_over_rule(bench, s) for s in seeds]),
        "same_winner": of_seeds([_same_winner(bench, s) for s in seeds]),
        "seconds_ratio": of_seeds([_seconds(bench, "full", None, s) / _seconds(bench, "lora", RANK, s) for s in seeds]),
    }


def _dev(bench: Bench, method: str, r: int | None, seed: int, *, longer: bool = False) -> float:
    """Held-out loss of the arm whose rate was chosen, after `steps` or after `longer` times as many."""
    found = bench.get(chosen_arm(bench, method, r, seed))
    return float((found["looks"][-1] if longer else at_end(bench, found))["dev"])


def _rate_over_rule(bench: Bench, seed: int) -> float:
    chosen = _dev(bench, "lora", RANK, seed)
    by_steps = abs(math.log(_dev(bench, "lora", RANK, seed, longer=True) / chosen))
    rates = rates_of(bench, "lora")
    others = [at_end(bench, bench.get(arm_job("lora", RANK, rate, seed)))["dev"] for rate in rates]
    return max(abs(math.log(other / chosen)) for other in others) - by_steps


def _same_winner(bench: Bench, seed: int) -> float:
    full = _dev(bench, "full", None, seed)
    better = [_dev(bench, "lora", RANK, seed, longer=longer) < full for longer in (False, True)]
    return float(better[0] == better[1])


def _seconds(bench: Bench, method: str, r: int | None, seed: int) -> float:
    """Processor seconds of `steps` steps."""
    return float(at_end(bench, bench.get(chosen_arm(bench, method, r, seed)))["seconds"])


def told(bench: Bench) -> list[dict[str, Any]]:
    """Means over seeds, for the table."""
    flops, seeds, steps = bench.get(flops_job()), range(bench.scale.seeds), bench.scale.steps
    rows = []
    for name, method, r, longer in (
        ("full", "full", None, False),
        ("LoRA r=8, equal steps", "lora", RANK, False),
        ("LoRA r=8, equal FLOPs", "lora", RANK, True),
    ):
        rows.append(
            {
                "arm": name,
                "rate": chosen_arm(bench, method, r, 0).of["rate"],
                "steps": round(steps * bench.scale.longer) if longer else steps,
                "FLOPs a step": flops[method]["counted"],
                "processor s a step": mean(_seconds(bench, method, r, s) for s in seeds) / steps,
                "held-out loss, nats a token": mean(_dev(bench, method, r, s, longer=longer) for s in seeds),
            }
        )
    return rows
