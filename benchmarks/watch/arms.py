"""Runs of one job: what each is told, and what came of it. All through the product: job, plan, worker, evidence."""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.watch.rows import Row
from benchmarks.watch.written import WRITTEN_ROWS
from rankwise import api
from rankwise.files import write_record
from rankwise.records import Acted, Saved, SpectrumSeen, Started, Step, Stopped, Watched
from rankwise.store import Run
from rankwise.worker import work

BATCH = 8
MAX_LENGTH = 256  # of replayed rows: those of the task are shorter, and most that the base wrote are not
EVERY = 15  # steps between two looks of the runs that are compared; the planned one has its own
# Rows that the base wrote: half of them are looked at in every run, the other half is replayed where a share says so.
WRITTEN = {"path": str(WRITTEN_ROWS)}
NONE, REPLAY = {**WRITTEN, "share": 0.0}, {**WRITTEN, "share": 0.3}
SUGGESTED = {**WRITTEN, "share": 0.05}  # what a plan asks for where language and domain stay (rule `replay`)


def write_rows(folder: Path, rows: list[Row], held_out: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, some in (("train", rows[held_out:]), ("validation", rows[:held_out])):
        text = "".join(json.dumps(row) + "\n" for row in some)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def bad(steps: int, action: str, general: dict[str, Any]) -> dict[str, Any]:
    """The worst corner (X3): rank 1 at a high rate, which stays as it is to the end."""
    return {
        "method": {"name": "lora", "r": 1, "lora_alpha": 2, "lora_dropout": 0.0},
        "data": {"general": general},
        "forgetting": {"action": action, "watch_steps": EVERY},
        "train": {
            "max_steps": steps,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "max_length": MAX_LENGTH,
            "per_device_train_batch_size": BATCH,
            "gradient_accumulation_steps": 1,
            "eval_steps": EVERY,
            "save_steps": EVERY,
        },
    }


def planned(general: dict[str, Any]) -> dict[str, Any]:
    """What the plan chooses when it is told nothing about method and rate."""
    return {"data": {"general": general}}


def prepared(folder: Path, name: str, said: dict[str, Any], items: int) -> Run:
    """A planned run of the rows in `folder`, whose looks take at most `items` of each set."""
    job = {"goal": "instruction", "model": "embedded", "hardware": "cpu", **said}
    job["data"] = {"train": "train.jsonl", "validation": "validation.jsonl", **said["data"]}
    path = folder / f"{name}.yaml"  # JSON is YAML; a .json would be taken for a plan
    path.write_text(json.dumps(job), encoding="utf-8")
    run = api.prepare(path, folder / name, {})
    plan = run.plan()
    assert plan.verdict.config is not None
    config = plan.verdict.config.model_copy(update={"watch_items": items})
    verdict = plan.verdict.model_copy(update={"config": config})
    write_record(run.plan_path, plan.model_copy(update={"verdict": verdict}))
    return run


def carried_out(run: Run) -> float:
    """Seconds of the whole run: one that is stopped is resumed until it ends."""
    began = time.monotonic()
    while (state := run.state()) in ("planned", "stopped"):
        for event in work(run, resume=state == "stopped", stop_signal=threading.Event()):
            if isinstance(event, Watched | Acted | Stopped):
                sys.stderr.write(f"{run.name}: {event.model_dump_json(exclude={'time'})}\n")
    return time.monotonic() - began


def outcome(arm: str, run: Run, seconds: float) -> dict[str, Any]:
    """Everything of one run that the metrics and the page are made of."""
    plan, evidence, raw = run.plan(), run.evidence(), run.raw_events()
    config, estimate = plan.verdict.config, plan.chosen()
    assert config and estimate and evidence.forgetting
    events = run.events()
    looks = [e for e in events if isinstance(e, Watched)]
    return {
        "arm": arm,
        "seconds": seconds,
        "config": {k: v for k, v in config.model_dump(mode="json").items() if v is not None},
        "candidate": plan.verdict.candidate,
        "steps": [{"step": e.step, "loss": e.loss, "seconds": e.seconds} for e in events if isinstance(e, Step)],
        "looks": [e.model_dump(mode="json", exclude={"time"}) for e in looks],
        "acted": [e.model_dump(mode="json", exclude={"time"}) for e in raw if isinstance(e, Acted)],
        "stopped": [e.model_dump(mode="json", exclude={"time"}) for e in raw if isinstance(e, Stopped)],
        "started": [e.step for e in raw if isinstance(e, Started)],
        "saved_seconds": [e.seconds for e in events if isinstance(e, Saved)],
        "spectrum_seconds": [e.seconds for e in events if isinstance(e, SpectrumSeen)],
        "forgetting": evidence.forgetting.model_dump(mode="json"),
        "findings": [f.model_dump(mode="json") for f in evidence.findings],
        "planned_watch": estimate.time.watch.model_dump(mode="json") if estimate.time.watch else None,
        "planned_step_seconds": estimate.time.step_seconds,
        "watched": [s.model_dump(mode="json") for s in plan.facts.data.watched],
    }
