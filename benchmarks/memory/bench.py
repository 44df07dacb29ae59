"""`python -m benchmarks.memory.bench`: predicted against published memory; writes result.json and README.md.

The full table lies beside the repository; without it `subset.csv` is read. Options and metrics: README.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.memory import intervals
from benchmarks.memory.asked import compared
from benchmarks.memory.compare import error_of, metrics
from benchmarks.memory.explain import explanation
from benchmarks.memory.predict import Answer, key_of, predict
from benchmarks.memory.readme import readme
from benchmarks.memory.rows import FULL_TABLE, SUBSET, Row, read_rows
from benchmarks.memory.settings import NO_GPU

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
# What the contract of `rankwise estimate` does not have.
BEYOND_CONTRACT = ("stack", "autocast")
PACKAGES = ("rankwise", "torch", "transformers", "peft", "bitsandbytes")
Answers = Mapping[str, Answer]


def contract_only(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without those that a stranger would not say."""
    return {key: value for key, value in options.items() if key not in BEYOND_CONTRACT}


def result_of(rows: Sequence[Row], answers: Answers, peers: Mapping[str, Any], table: str) -> dict[str, Any]:
    """Everything that result.json holds. `peers` as `peers.py` prints it; empty where they are not installed."""
    mapped = [row for row in rows if row.options is not None]
    said = {row.id: answers[key_of(row.options or {})] for row in mapped}
    pairs = [pair(row, said[row.id], answers) for row in mapped if row.outcome == "ok" and said[row.id].peaks]
    return {
        "metrics": metrics(pairs),
        "table": f"{table}, {sum(':' not in row.id for row in rows)} rows",
        "commit": commit(),
        "versions": versions(peers),
        "machine": machine(),
        "intervals": [
            {"statistic": statistic, "family": family, "low": low, "high": high, "rows": count}
            for (statistic, family), (low, high, count) in intervals.intervals(intervals.exact(pairs)).items()
        ],
        "left_out": intervals.left_out(intervals.exact(pairs)),
        "fits": fits(mapped, said),
        "peers": compared(peers, pairs),
        "cpu": cpu(),
        "rows": pairs,
        "refused": [
            {"id": row.id, "source": row.source, "grade": row.grade, "reason": said[row.id].said}
            for row in mapped
            if said[row.id].said
        ],
        "unmapped": [
            {"id": row.id, "source": row.source, "grade": row.grade, "reason": row.reason}
            for row in rows
            if row.reason is not None
        ],
    }


def pair(row: Row, said: Answer, answers: Answers) -> dict[str, Any]:
    """One measurement beside its predictions by both mappings."""
    options = row.options or {}
    low, high, predicted = float(row.low or 0), float(row.high or 0), said.peaks[row.statistic]
    stranger = answers[key_of(contract_only(options))].peaks.get(row.statistic)
    found = {
        "id": row.id,
        "source": row.source,
        "grade": row.grade,
        "statistic": row.statistic,
        "method": options["method"],
        "options": options,
        "measured": row.measured,
        "low": low,
        "high": high,
        "predicted": predicted,
        "error": error_of(predicted, low, high),
        "predicted_contract_only": stranger,
        "error_contract_only": None if stranger is None else error_of(stranger, low, high),
        "capacity": said.capacity,
        "note": row.note,
    }
    return {**found, "explanation": explanation(found)}


def fits(mapped: Sequence[Row], said: Answers) -> dict[str, Any]:
    """Runs that ended, and runs that ran out of memory, against `fits`; each run once."""
    wrong = []
    counts = {name: {"rows": 0, "right": 0} for name in ("ran", "out_of_memory")}
    for row in mapped:
        answer, options = said[row.id], row.options or {}
        if answer.fits is None or NO_GPU in row.note or ":" in row.id:
            continue
        counts["ran" if row.outcome == "ok" else "out_of_memory"]["rows"] += 1
        if answer.fits == (row.outcome == "ok"):
            counts["ran" if row.outcome == "ok" else "out_of_memory"]["right"] += 1
        else:
            share = answer.peaks["device"] / answer.capacity if answer.capacity else 0.0
            wrong.append(
                {"id": row.id, "model": options["model"], "method": options["method"], "gpu": options["gpu"]}
                | {"share_of_capacity": share}
            )
    return {**counts, "wrong": wrong}


def ask_peers(rows: Sequence[Row], python: Path) -> dict[str, Any]:
    """What the other estimators say of the grade A rows, each set of options once; empty where they are missing."""
    if not python.exists():
        sys.stderr.write(f"{python} is missing: the other estimators are left out (make bench-memory builds it)\n")
        return {}
    from rankwise.api import configuration
    from rankwise.errors import RankwiseError

    asked: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.options is None or row.grade != "A" or row.outcome != "ok":
            continue
        try:
            config = configuration(row.options).config
        except RankwiseError:
            continue
        key = key_of(row.options)
        asked.setdefault(key, {"id": key, "options": row.options, "config": config, "gpu": row.options.get("gpu")})
    command = [str(python), "-m", "benchmarks.memory.peers"]
    sys.stderr.write(f"{len(asked)} configurations to the other estimators\n")
    done = subprocess.run(
        command, input=json.dumps(list(asked.values())), capture_output=True, text=True, cwd=ROOT, timeout=540
    )
    if done.returncode:
        raise SystemExit(f"the other estimators failed: {done.stderr.strip()[-1000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def cpu() -> dict[str, Any] | None:
    """What `benchmarks.memory.cpu` wrote, if it ran."""
    path = HERE / "cpu.json"
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found


def versions(peers: Mapping[str, Any]) -> dict[str, str]:
    own = {name: version(name) for name in PACKAGES if name != "rankwise"}
    from rankwise.version import __version__

    others = {name: str(of["version"]) for name, of in peers.get("peers", {}).items()}
    return {"python": platform.python_version(), "rankwise": __version__, **own, **others}


def machine() -> dict[str, Any]:
    return {"platform": platform.platform(), "processor": platform.machine(), "cpus": os.cpu_count()}


def machine_in_words(found: Mapping[str, Any]) -> str:
    """2 cores, x86_64, Linux-6.18."""
    return f"{found['cpus']} cores, {found['processor']}, {found['platform']}"


def commit() -> str:
    """The commit, with `-dirty` where the tree differs; `unknown` outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def wanted(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every set of options that a result needs."""
    said = [row.options for row in rows if row.options is not None]
    return [*said, *map(contract_only, said)]


def main() -> int:
    """Price, compare, write, and print the metrics."""
    parser = argparse.ArgumentParser(description="Predicted against published memory.")
    parser.add_argument("--table", type=Path, default=FULL_TABLE if FULL_TABLE.exists() else SUBSET)
    parser.add_argument("--peers", type=Path, default=PEERS, help="Python of the other estimators' virtualenv.")
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--write-residuals", action="store_true", help="Write the intervals that estimate publishes.")
    asked = parser.parse_args()
    rows = read_rows(asked.table)
    answers = predict(wanted(rows), asked.workers)
    result = result_of(rows, answers, ask_peers(rows, asked.peers), asked.table.name)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (asked.out / "README.md").write_text(readme(result), encoding="utf-8")
    if asked.write_residuals:
        intervals.write(result["rows"], result["table"])
    for name, value in result["metrics"].items():
        sys.stdout.write(f"{name:45} {value:10.4f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
