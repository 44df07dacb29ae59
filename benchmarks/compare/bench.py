"""`python -m benchmarks.compare.bench`: two jobs of real data, each compared by `rankwise compare` as a user would.

A persona (style, and twelve facts of its own) and rare diseases (facts that a base of this size does not know). Nothing
is chosen here but the jobs, the arms and the budget; result.json holds what the outcome said, with each arm's score on
every item, from which the contrasts can be computed again. About sixteen minutes on two cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.compare.jobs import TASKS, Task, data_folder
from benchmarks.compare.readme import readme
from benchmarks.memory.bench import commit, machine, versions

HERE = Path(__file__).parent
MINUTES, SEEDS, SWEEP = 8.0, 2, 3


def compared(task: Task, place: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """One row of result.json: the comparison as planned, every final trial's scores, and the outcome.

    Raises:
        SystemExit: `rankwise compare` failed; what it said is told.
    """
    job, out = place / task.name, place / f"{task.name}-compared"
    job.mkdir()
    task.write(data_folder(), job)
    options = ["--budget-minutes", f"{asked.minutes:g}", "--seeds", str(asked.seeds), "--lr-sweep", str(SWEEP)]
    command = ["compare", str(job / "job.yaml"), "--methods", task.methods, *options, "--out", str(out), "--json"]
    # what was compared before must not change rates here, nor these jobs what is planned later
    apart = {**os.environ, "RANKWISE_COMPARISONS": "off"}
    done = subprocess.run([sys.executable, "-m", "rankwise", *command], env=apart, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{task.name}: rankwise compare ended with {done.returncode}")
    if asked.pages:
        asked.pages.mkdir(parents=True, exist_ok=True)
        (asked.pages / f"{task.name}.html").write_bytes((out / "report.html").read_bytes())
    planned = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    trials = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "trials").glob("*.json"))]
    return {
        "job": task.name,
        "question": task.question,
        "methods": task.methods,
        "minutes": planned["budget"],
        "seeds": planned["seeds"],
        "allowances": [_without(a, "arm", "config") | {"arm": a["arm"]["name"]} for a in planned["allowances"]],
        "detectable": planned["detectable"],
        "trials": [_without(trial, "answers", "curve", "version") for trial in trials],  # no text of the data is kept
        "outcome": json.loads(done.stdout),
    }


def _without(record: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


def metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Flat name -> number: of each job how many contrasts were told apart, and what it took."""
    found: dict[str, float] = {}
    for row in rows:
        name, outcome = row["job"].replace("-", "_"), row["outcome"]
        answers = [c["answer"] for c in outcome["contrasts"]]
        found[f"{name}_contrasts"] = float(len(answers))
        found[f"{name}_told_apart"] = float(sum(a != "cannot tell" for a in answers))
        found[f"{name}_minutes"] = outcome["spent_seconds"] / 60
    return found


def main() -> None:
    """Run, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare.bench", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="budget of each job (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each trained arm (default: %(default)s)")
    parser.add_argument("--only", choices=[task.name for task in TASKS], help="one of the two jobs")
    parser.add_argument("--pages", type=Path, help="folder for the comparisons' own pages")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of result.json and README.md")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rankwise-bench-") as place:
        rows = [compared(task, Path(place), asked) for task in TASKS if asked.only in (None, task.name)]
    result = {
        "metrics": metrics(rows),
        "rows": rows,
        "commit": commit(),
        "versions": versions({}),
        "machine": machine(),
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (asked.out / "README.md").write_text(readme(result), encoding="utf-8")
    sys.stdout.write(readme(result))


if __name__ == "__main__":
    main()
