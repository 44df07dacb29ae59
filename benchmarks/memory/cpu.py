"""`python -m benchmarks.memory.cpu`: the embedded model's CPU peak, predicted, metered and in the resident set.

Each configuration runs in a fresh process, which loads torch and transformers first, then measures how far its resident
set grows from before the model is loaded to its highest (ru_maxrss). Prints a table; writes benchmarks/memory/cpu.json.
The first figure is of a trace, the second of torch's allocator while two real steps ran, the third of the kernel: it
holds the weights file's pages, oneDNN's scratchpads and what malloc keeps of freed blocks as well.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROWS, LENGTH = 2, 128
CASES: dict[str, dict[str, Any]] = {
    "full amp": {"method": "full", "dtype": "fp32", "autocast": "bf16"},
    "full bf16": {"method": "full", "dtype": "bf16"},
    "lora": {"method": "lora", "dtype": "bf16", "r": 8, "lora_alpha": 16.0, "target_modules": "all-linear"},
    "qlora": {"method": "qlora", "dtype": "bf16", "r": 8, "lora_alpha": 16.0, "target_modules": "all-linear"},
}
NUMBERS = ("predicted", "metered", "rss_growth", "rss_before", "loaded")
KIB = 1024


def cases() -> dict[str, dict[str, Any]]:
    return {
        f"{name}{', checkpointing' if on else ''}": {**options, "gradient_checkpointing": on}
        for name, options in CASES.items()
        for on in (False, True)
    }


def one(name: str, metered: bool) -> dict[str, int]:
    """One configuration in this process: two plain steps for the resident set, or two under torch's memory records,
    which take memory themselves and are therefore run in a process of their own."""
    from rankwise.estimate.measured import measure, plain_steps
    from rankwise.model.locate import locate
    from rankwise.records import Setup
    from rankwise.trace.peaks import trace

    folder = locate("embedded")
    config = json.loads((folder / "config.json").read_text())
    setup = Setup(config=config, per_device_train_batch_size=ROWS, max_length=LENGTH, device="cpu", **cases()[name])
    if metered:
        return {"metered": measure(setup, folder, timed=0).peak_allocated, "predicted": trace(setup).peak_allocated}
    before = _resident()
    loaded = plain_steps(setup, folder, lambda: _resident() - before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    return {"rss_growth": peak - before, "rss_before": before, "loaded": loaded}


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _child(name: str, kind: str) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks.memory.cpu", "--one", name, "--kind", kind]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip()[-2000:]}")
    found: dict[str, int] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def row(name: str) -> dict[str, Any]:
    found = {"id": name, **_child(name, "metered"), **_child(name, "rss")}
    return found | {
        "predicted_error": found["predicted"] / found["metered"] - 1,
        "rss_over_metered": found["rss_growth"] / found["metered"],
    }


def line(found: dict[str, Any]) -> str:
    columns = [found["id"].ljust(26), *(f"{found[n] / 1e6:10.1f}" for n in ("predicted", "metered", "rss_growth"))]
    return " ".join([*columns, f"{found['predicted_error']:+9.2%}", f"{found['rss_over_metered']:7.2f}"])


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", choices=list(cases()), help="One configuration, in this process.")
    parser.add_argument("--kind", choices=["metered", "rss"], default="metered")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("cpu.json"))
    asked = parser.parse_args()
    if asked.one:
        say(json.dumps(one(asked.one, asked.kind == "metered")))
        return
    heads = ("predicted", "metered", "RSS growth")
    say(" ".join([f"{f'MB, {ROWS} x {LENGTH} tokens':26}", *(f"{h:>10}" for h in heads), "    error RSS/met."]))
    rows = []
    for name in cases():
        rows.append(row(name))
        say(line(rows[-1]))
    errors = [abs(r["predicted_error"]) for r in rows]
    result = {
        "metrics": {
            "worst_abs_error_allocated": max(errors),
            "median_abs_error_allocated": sorted(errors)[len(errors) // 2],
            "rows": len(rows),
        },
        "rows": rows,
        "tokens": [ROWS, LENGTH],
        "machine": {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "threads": os.environ.get("OMP_NUM_THREADS"),
        },
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")},
        "made_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
