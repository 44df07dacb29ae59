"""`python -m benchmarks.time.embedded --out FILE`: the embedded job's time here, predicted and actual.

Calibrates with the clinic job's own configuration, then plans, trains, evaluates and merges it, each as the command
that a person would type, in a process of its own. Predictions are those that the commands told, before (training) or
by what they knew before (evaluation, merge); beside them stands what the formulas say without the calibration. Start
it on an idle machine: what else runs is in the actual seconds. Its ledger is its own; the machine's stays as it is.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rankwise.version import __version__

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "examples" / "clinic" / "job.yaml"
STEPS = 16
# Actual.quantity -> LedgerEntry.quantity
QUANTITIES = {
    "step_seconds": "step",
    "train_seconds": "train",
    "evaluation_seconds": "evaluation",
    "merge_seconds": "merge",
}
PACKAGES = ("torch", "transformers", "peft")


def measure(folder: Path, steps: int) -> dict[str, Any]:
    """Everything the result holds. `folder` takes the runs and the ledger."""
    os.environ["RANKWISE_LEDGER"] = str(folder / "ledger.jsonl")
    began, about = time.monotonic(), machine()
    run = folder / "run"
    job = [str(JOB), "--max-steps", str(steps)]
    first = rankwise("plan", *job, "--out", str(folder / "first"))
    calibrated = rankwise("estimate", "--calibrate", *options_of(folder / "first" / "plan.json"))
    rankwise("plan", *job, "--out", str(run))
    rankwise("train", str(run / "plan.json"), "--out", str(run))
    rankwise("eval", str(run))
    rankwise("merge", str(run))
    rows = rows_of(run, folder / "ledger.jsonl")
    return {
        "metrics": metrics(rows),
        "rows": rows,
        "method": first["verdict"]["method"],
        "steps": steps,
        "calibration": [note for note in calibrated["notes"] if note.startswith("calibrated: ")],
        "seconds": time.monotonic() - began,
        **about,
    }


def machine() -> dict[str, Any]:
    """Where and with what it runs, and how busy the machine was before it began."""
    load = os.getloadavg()[0]
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {load:.2f} at the start",
        "versions": {"rankwise": __version__, **{name: version(name) for name in PACKAGES}},
    }


def options_of(plan: Path) -> list[str]:
    """The configuration that a plan chose, as options of `rankwise estimate`."""
    content = json.loads(plan.read_text())
    config, data = content["verdict"]["config"], content["facts"]["data"]
    said: dict[str, Any] = {
        "model": content["job"]["model"],
        "gpu": "cpu",
        "method": config["method"],
        "rank": config["r"],
        "alpha": config["lora_alpha"],
        "dropout": config["lora_dropout"],
        "targets": _joined(config["target_modules"]),
        "dtype": config["dtype"],
        "autocast": config["autocast"],
        "optimizer": config["optim"],
        "batch": config["per_device_train_batch_size"],
        "grad-accum": config["gradient_accumulation_steps"],
        "seq-len": min(data["longest"], config["max_length"]),
        "tokens-per-example": round(data["mean_length"]),
        "loss": "labelled",
    }
    flags = [part for name, value in said.items() if value not in (None, 0.0) for part in (f"--{name}", str(value))]
    checkpointing = f"--{'' if config['gradient_checkpointing'] else 'no-'}gradient-checkpointing"
    return [*flags, checkpointing, "--no-kbit-upcast"]


def _joined(targets: Any) -> str | None:
    return ",".join(targets) if isinstance(targets, list) else targets


def rows_of(run: Path, ledger: Path) -> list[dict[str, Any]]:
    """Two rows a quantity: by formula alone, and as told after the calibration."""
    actuals = {a["quantity"]: a for a in json.loads((run / "evidence.json").read_text())["actuals"]}
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    kept = {e["quantity"]: e for e in entries if e["source"] == f"run {run.name}"}
    rows = []
    for name, quantity in QUANTITIES.items():
        told = actuals[name]
        rows += [
            row(name, kept[quantity]["predicted"], None, told["actual"], calibrated=False),
            row(name, told["predicted"], told["interval"], told["actual"], calibrated=True),
        ]
    return rows


def row(quantity: str, predicted: float, interval: Any, actual: float, *, calibrated: bool) -> dict[str, Any]:
    return {
        "quantity": quantity,
        "predicted": predicted,
        "interval": interval,
        "actual": actual,
        "error": predicted / actual - 1,
        "calibrated": calibrated,
    }


def metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Flat name -> number: the absolute error of each quantity, the largest, and how many intervals held."""
    told = [r for r in rows if r["calibrated"]]
    found = {f"embedded_abs_error_{r['quantity']}": abs(r["error"]) for r in told}
    found["embedded_worst_abs_error"] = max(abs(r["error"]) for r in told)
    found["embedded_worst_abs_error_uncalibrated"] = max(abs(r["error"]) for r in rows if not r["calibrated"])
    held = [r["interval"][0] <= r["actual"] <= r["interval"][1] for r in told if r["interval"]]
    return found | {"embedded_intervals_held": sum(held) / len(held)}


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| quantity | calibrated | predicted | interval | actual | error |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        span = f"{r['interval'][0]:.3g} to {r['interval'][1]:.3g} s" if r["interval"] else ""
        calibrated = "yes" if r["calibrated"] else "no"
        lines.append(
            f"| {r['quantity']} | {calibrated} | {r['predicted']:.3g} s | {span} | {r['actual']:.3g} s "
            f"| {r['error']:+.0%} |"
        )
    return "\n".join(lines)


def rankwise(*arguments: str) -> Any:
    """One command; its JSON. What it says on the way goes to standard error."""
    sys.stderr.write(f"rankwise {' '.join(arguments)}\n")
    path = os.pathsep.join(p for p in (str(ROOT / "src"), os.environ.get("PYTHONPATH", "")) if p)
    done = subprocess.run(
        [sys.executable, "-m", "rankwise", *arguments, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode:
        sys.exit(f"`rankwise {arguments[0]}` ended with code {done.returncode}: {done.stdout}")
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time.embedded", description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file to write (default: standard output)")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps of the run (%(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rankwise-embedded-") as place:
        found = measure(Path(place), arguments.steps)
    text = json.dumps(found, indent=1) + "\n"
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
        sys.stdout.write(table(found["rows"]) + "\n")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
