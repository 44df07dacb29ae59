"""`python -m benchmarks.time.bench`: predicted against published throughput; writes result.json and README.md.

The full table lies beside the repository; without it `subset.csv` is read. Options and metrics: README.md.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.memory.bench import PEERS, ROOT, commit, machine, versions
from benchmarks.memory.rows import FULL_TABLE
from benchmarks.time import compare
from benchmarks.time.cases import Case, cases
from benchmarks.time.fit import PRIOR, Fit, Measured, fit, throughput
from benchmarks.time.peers import predict as ask_peers
from benchmarks.time.readme import readme
from benchmarks.time.rows import Row, read_rows
from rankwise.estimate.efficiency import Efficiency
from rankwise.observe.devices import observe_device
from rankwise.records.job import Hardware

HERE = Path(__file__).parent
SUBSET = HERE / "subset.csv"
EFFICIENCIES = ROOT / "src" / "rankwise" / "estimate" / "efficiencies.toml"
GRADES = ("A", "B")
PREDICTABLE = Fit(Efficiency(**{name: figure for name, (figure, _) in PRIOR.items()}), {})


def on_devices(traced: Sequence[Case]) -> tuple[list[Measured], list[dict[str, Any]]]:
    """Cases whose device has the peaks that a prediction needs, and the others with the reason."""
    kept, refused = [], []
    for case in traced:
        if case.refused is not None:
            refused.append({"id": case.row.id, "source": case.row.source, "reason": case.refused})
            continue
        setup = case.setup
        count = setup.world_size // case.nodes
        measured = Measured(case, observe_device(Hardware(gpu=case.gpu, count=count, nodes=case.nodes)))
        if throughput(measured, PREDICTABLE) is None:
            reason = f"a peak or the link of {case.gpu} is not known"
            refused.append({"id": case.row.id, "source": case.row.source, "reason": reason})
        else:
            kept.append(measured)
    return kept, refused


def result_of(rows: Sequence[Row], traced: Sequence[Case], peers: Mapping[str, Any], table: str) -> dict[str, Any]:
    """Everything that result.json holds."""
    measured, refused = on_devices(traced)
    whole, without = fit(measured), compare.folds(measured)
    found = compare.pairs(measured, without, whole)
    embedded = read_embedded()
    return {
        "metrics": compare.metrics(found) | (embedded["metrics"] if embedded else {}),
        "table": f"{table}, {len(rows)} rows with a throughput",
        "commit": commit(),
        "versions": versions({}) | {"scipy": version("scipy")},
        "machine": machine(),
        "fit": {"every": asdict(whole.every), "generation": whole.by_generation},
        "intervals": compare.intervals(found),
        "peers": _peers(peers, found),
        "embedded": embedded,
        "rows": found,
        "refused": refused,
        "unmapped": [
            {"id": row.id, "source": row.source, "grade": row.grade, "reason": row.reason}
            for row in rows
            if row.reason is not None
        ],
    }


def _peers(said: Mapping[str, Any], found: compare.Pairs) -> list[dict[str, Any]]:
    """Each estimator on the rows that it answers, beside our out-of-sample error on the same rows."""
    made = []
    for name, answers in said.get("answers", {}).items():
        both = [(row, answers[row["id"]]) for row in found if answers.get(row["id"])]
        if not both:
            continue
        errors = [answer / row["measured"] - 1 for row, answer in both]
        made.append(
            {
                "name": name,
                "version": said["versions"].get(name),
                "claims": said["claims"].get(name),
                "refused": sum(said["refused"].get(name, {}).values()),
                "rows": len(both),
                "median_abs_error": compare.median(map(abs, errors)),
                "median_error": compare.median(errors),
                "worst": max(errors, key=abs),
                "ours_on_the_same_rows": compare.median(abs(row["error"]) for row, _ in both),
            }
        )
    return sorted(made, key=lambda peer: float(peer["median_abs_error"]))


def read_embedded() -> dict[str, Any] | None:
    """What `benchmarks.time.embedded` wrote, if it ran."""
    path = HERE / "embedded.json"
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found


def write_efficiencies(result: Mapping[str, Any]) -> None:
    """The fit to all rows and the out-of-sample intervals, where `rankwise estimate` reads them."""
    count, sources = result["metrics"]["rows"], len({row["source"] for row in result["rows"]})
    error = result["metrics"]["median_abs_error_out_of_sample"]
    lines = [
        "# Shares of a GPU's peaks that training reaches; see efficiency.py. Written by `make bench-time` with",
        "# --write-efficiencies. interval: 5 % and 95 % quantiles of actual / predicted duration for sources that took",
        "# no part in the fit, by family of methods; `unseen`: for architectures that no row of the fit had.",
        f'source = "roofline fitted on {count} published throughputs of {sources} sources; median absolute error '
        f'{100 * error:.1f} % for a source that took no part (benchmarks/time)"',
        "",
        "[every]",
        *(f"{name} = {value:.4g}" for name, value in result["fit"]["every"].items()),
    ]
    for generation, own in result["fit"]["generation"].items():
        lines += ["", f"[generation.{generation}]", *(f"{name} = {value:.4g}" for name, value in own.items())]
    for name, families in result["intervals"].items():
        lines += ["", f"[interval.{name}]"]
        lines += [f"{kind} = [{low:.3f}, {high:.3f}]  # {n} rows" for kind, (low, high, n) in families.items()]
    EFFICIENCIES.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    """Trace, fit, compare, write, and print the metrics."""
    parser = argparse.ArgumentParser(description="Predicted against published throughput.")
    parser.add_argument("--table", type=Path, default=FULL_TABLE if FULL_TABLE.exists() else SUBSET)
    parser.add_argument("--peers", type=Path, default=PEERS, help="Python of the other estimators' virtualenv.")
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--write-efficiencies", action="store_true", help="Write what estimate reads.")
    asked = parser.parse_args()
    rows = [row for row in read_rows(asked.table) if row.grade in GRADES]
    result = result_of(rows, cases(rows, asked.workers), ask_peers(rows, asked.peers), asked.table.name)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (asked.out / "README.md").write_text(readme(result), encoding="utf-8")
    if asked.write_efficiencies:
        write_efficiencies(result)
    for name, value in result["metrics"].items():
        sys.stdout.write(f"{name:45} {value:10.4f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
