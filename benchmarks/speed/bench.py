"""`python -m benchmarks.speed.bench`: how long a plan takes beside the imports that a first one cannot do without;
writes result.json and README.md.

Whole processes, by the wall clock, one after the other on a machine that does nothing else. Each round has its own
cache folder: the imports of the tracing stack, a plan with that cache empty, the same plan again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import track

from benchmarks.memory.bench import commit, machine, machine_in_words, versions

HERE = Path(__file__).parent
ROUNDS = 5
IMPORTS = "import torch, transformers, peft, bitsandbytes"
JOB = {
    "model": "llama-3-70b",
    "goal": "instruction",
    "gpu": "A100-80GB",
    "gpus": "8",
    "examples": "50000",
    "tokens-per-example": "512",
}
COLD_MUST, WARM_MUST = 8.0, 1.0  # seconds: beyond the imports, and from cache


def seconds(command: list[str], environment: Mapping[str, str], out: Path) -> float:
    """Of one process; its standard output goes to `out`. Raises CalledProcessError."""
    began = time.perf_counter()
    with out.open("wb") as file:
        subprocess.run(command, env=dict(environment), stdout=file, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def one_round(folder: Path) -> dict[str, float]:
    """Seconds of the imports, of a first plan, and of the same plan again."""
    environment = os.environ | {"RANKWISE_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    options = [part for name, value in JOB.items() for part in (f"--{name}", value)]
    plan = [sys.executable, "-m", "rankwise", "plan", *options, "--json", "--out"]
    return {
        "imports": seconds([sys.executable, "-c", IMPORTS], environment, folder / "imports"),
        "cold": seconds([*plan, str(folder / "first")], environment, folder / "plan.json"),
        "warm": seconds([*plan, str(folder / "again")], environment, folder / "plan.json"),
        "candidates": len(json.loads((folder / "plan.json").read_text())["candidates"]),
    }


def measured(rounds: int) -> dict[str, Any]:
    """Everything that result.json holds."""
    made = []
    for _ in track(range(rounds), "planning", console=Console(stderr=True), transient=True):
        with tempfile.TemporaryDirectory() as folder:
            made.append(one_round(Path(folder)))
    beyond = [r["cold"] - r["imports"] for r in made]
    return {
        "job": JOB,
        "candidates": int(made[0]["candidates"]),
        "rounds": made,
        "medians": {
            "imports": median(r["imports"] for r in made),
            "cold": median(r["cold"] for r in made),
            "beyond": median(beyond),
            "warm": median(r["warm"] for r in made),
        },
        "commit": commit(),
        "versions": versions({}),
        "machine": machine(),
    }


def readme(result: Mapping[str, Any]) -> str:
    """The table, from result.json alone."""
    found = result["medians"]
    rounds = result["rounds"]

    def line(name: str, key: str, must: str) -> str:
        values = [r["cold"] - r["imports"] if key == "beyond" else r[key] for r in rounds]
        return f"| {name} | {found[key]:.2f} | {min(values):.2f} to {max(values):.2f} | {must} |"

    job = ", ".join(f"{name} {value}" for name, value in result["job"].items())
    lines = [
        "# How long a plan takes",
        "",
        "<!-- Made by `make bench-speed` from result.json. -->",
        "",
        f"One job ({job}), {result['candidates']} priced candidates, flips, questions and offers; whole processes,",
        f"seconds by the wall clock, median of {len(rounds)} rounds, no network. Other programs here add to it.",
        "",
        "| what | median, s | from, to | asked |",
        "| --- | --- | --- | --- |",
        line(f"`{IMPORTS}` alone", "imports", ""),
        line("a first plan, nothing remembered", "cold", ""),
        line("the same, beyond the imports", "beyond", f"at most {COLD_MUST:g}"),
        line("the plan again, from cache", "warm", f"at most {WARM_MUST:g}"),
        "",
        f"Machine: {machine_in_words(result['machine'])}. Code: {result['commit']}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of result.json and README.md")
    asked = parser.parse_args()
    result = measured(asked.rounds)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (asked.out / "README.md").write_text(readme(result), encoding="utf-8")
    sys.stdout.write(readme(result))


if __name__ == "__main__":
    main()
