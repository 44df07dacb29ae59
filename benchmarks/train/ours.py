"""`python -m benchmarks.train.ours`: trains by `rankwise`'s own plan and worker; a JSON line in, a JSON line out.

In: {"folder", "train": conversations, "held_out": conversations, "steps"}. Out: {"step_seconds", "losses", "held_out",
"tokens", "supervised", "config", "overhead", "padding", "flops_per_token"}. The plan chooses all but what the arms
share: LoRA's settings, the rate, and 16 rows a step.
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.train.rows import LEARNING_RATE, LORA, STEP_ROWS, encoded, held_out_loss


def prepared(asked: dict[str, Any], **train: Any) -> Any:
    """A planned run."""
    from rankwise import api

    folder = Path(asked["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "held_out"):
        lines = [json.dumps({"messages": row}) + "\n" for row in asked[name]]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    job = {
        "goal": "instruction",
        "model": "embedded",
        "data": {"train": "train.jsonl", "validation": "held_out.jsonl"},
        "hardware": "cpu",
        "method": {"name": "lora", **LORA},
        "forgetting": {"watch_steps": 0},  # the others look at nothing, and what looking costs has its own bench
        "train": {
            "max_steps": asked["steps"],
            "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "eval_steps": asked["steps"],
            "save_steps": asked["steps"],
            **train,
        },
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job), encoding="utf-8")
    return api.prepare(path, folder / f"run-{len(train)}", {})


def trained(asked: dict[str, Any]) -> dict[str, Any]:
    """One run of `steps` steps in this process."""
    from rankwise.records import Step
    from rankwise.worker import work

    at_once = prepared(asked).plan().verdict.config.per_device_train_batch_size
    run = prepared(asked, per_device_train_batch_size=at_once, gradient_accumulation_steps=max(1, STEP_ROWS // at_once))
    steps, between, before = [], [], 0.0
    for event in work(run, resume=False, stop_signal=threading.Event()):
        if isinstance(event, Step):  # since the event before it was on the disk: rows, batches, step, event
            steps.append(event)
            between.append(time.perf_counter() - before)
        before = time.perf_counter()
    inside = [s.model_seconds for s in steps]
    plan, evidence = run.plan(), run.evidence()
    return {
        "step_seconds": [s.seconds for s in steps],
        "losses": [s.loss for s in steps],
        "tokens": [s.tokens for s in steps],
        "supervised": [s.supervised_tokens for s in steps],
        "held_out": _judged(run, asked),
        "overhead": 1 - sum(inside) / sum(between),
        "padding": evidence.padding_share,
        "config": {k: v for k, v in plan.verdict.config.model_dump(mode="json").items() if v is not None},
        "flops_per_token": plan.chosen().time.flops_per_token,
    }


def _judged(run: Any, asked: dict[str, Any]) -> float:
    """The published adapter on its base, by the same function as every arm."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = run.plan().facts.model.path
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return held_out_loss(PeftModel.from_pretrained(base, run.adapter), encoded(tokenizer, asked["held_out"]))


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    for line in sys.stdin:
        answers.write(json.dumps(trained(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
