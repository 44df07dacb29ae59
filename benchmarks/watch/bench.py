"""`python -m benchmarks.watch.bench`: is forgetting seen, and acted on, and what does looking cost?

Four runs of one format task on the embedded model, all through the product: rank 1 at rate 1e-3 without replay, which
is stopped when it is red and then gone on with to its end; the same, rolled back; the same with rows that the base
wrote replayed; and what the plan chooses, with replay as it suggests. Then spectra at the shapes of
Llama-3-8B. Writes result.json, README.md and the plots. About twelve minutes on two idle cores.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.memory.bench import commit, machine, versions
from benchmarks.watch.arms import NONE, REPLAY, SUGGESTED, bad, carried_out, outcome, planned, prepared, write_rows
from benchmarks.watch.plot import frontier_svg, steps_svg
from benchmarks.watch.readme import readme
from benchmarks.watch.rows import task_rows
from benchmarks.watch.spectrum import spectrum_rows

HERE = Path(__file__).parent
STEPS, ROWS, HELD_OUT = 60, 160, 16
ITEMS = 24  # of each set, at most: few enough for four looks of each run
HALF_HOUR = 1800.0
SLICE = "general rows"  # what the base wrote, and is never trained on: in every run the same


def arms(steps: int) -> dict[str, dict[str, Any]]:
    """Name -> what its job says."""
    return {
        "bad, stopped and resumed": bad(steps, "stop", NONE),
        "bad, rolled back": bad(steps, "rollback", NONE),
        "bad, with replay": bad(steps, "warn", REPLAY),
        "planned": planned(SUGGESTED),
    }


def measured(asked: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Everything that result.json holds."""
    rows, source = task_rows(asked.rows, ROWS + HELD_OUT)
    write_rows(place, rows, HELD_OUT)
    found = []
    for name, said in arms(asked.steps).items():
        run = prepared(place, name.replace(", ", "-").replace(" ", "-"), said, asked.items)
        found.append(outcome(name, run, carried_out(run)))
    spectra = spectrum_rows()
    return {
        "metrics": {**metrics(found), **spectrum_metrics(spectra)},
        "rows": found,
        "spectra": spectra,
        "data": {"source": source, "rows": len(rows) - HELD_OUT, "held_out": HELD_OUT},
        "commit": commit(),
        "versions": versions({}),
        "machine": machine(),
    }


def metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Flat name -> number, from the raw rows."""
    by_arm = {row["arm"]: row for row in rows}
    bad_run, back, replay = (by_arm[f"bad, {how}"] for how in ("stopped and resumed", "rolled back", "with replay"))
    chosen = by_arm["planned"]
    lost, kept = nats(bad_run["looks"][-1]), nats(replay["looks"][-1])
    stopped = {"bad_stopped_at": bad_run["stopped"][0]["step"]} if bad_run["stopped"] else {}
    went_back = {"bad_rolled_back_to": back["acted"][0]["back_to"]} if back["acted"] else {}
    return {
        "overhead": overhead(bad_run),
        "bad_nats": lost,
        **stopped,
        **went_back,
        "rolled_back_red": float(back["forgetting"]["level"] == "red"),
        "replay_nats": kept,
        "replay_saves": 1 - kept / lost,
        "planned_nats": nats(shown(chosen)),
        "planned_red": float(any(look["level"] == "red" for look in chosen["looks"])),
        "look_seconds": look_seconds(bad_run),
        "seconds": sum(row["seconds"] for row in rows),
    }


def spectrum_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of the adapter's figures alone, at the shapes of Llama-3-8B."""
    alone = next(row for row in rows if row["what"] == "adapter alone, all modules")
    return {"spectrum_seconds": alone["seconds"], "spectrum_peak_bytes": float(alone["peak_bytes"])}


def nats(look: Mapping[str, Any]) -> float:
    """Rise of cross-entropy on the rows that the base wrote."""
    return float(next(s["difference"] for s in look["slices"] if s["name"] == SLICE))


def shown(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The look at what was published."""
    step = row["forgetting"]["step"]
    return next(look for look in row["looks"] if look["step"] == step)


def look_seconds(row: Mapping[str, Any]) -> float:
    """Of one look at a model that trains, and of the spectra where they are seen."""
    spectra = median(row["spectrum_seconds"]) if row["spectrum_seconds"] else 0.0
    return median(look["seconds"] for look in row["looks"] if look["step"] > 0) + spectra


def overhead(row: Mapping[str, Any]) -> float:
    """Share of a run of half an hour that looks take: as often as the plan's own predictions have it look, each as long
    as it was measured to be, that at the base too, which the cache may spare.
    """
    from rankwise.estimate.watching import plan_watch
    from rankwise.records import WatchedSet

    step = median(s["seconds"] for s in row["steps"][1:])
    watch, sets = row["planned_watch"], [WatchedSet.model_validate(s) for s in row["watched"]]
    told = watch["seconds"] / watch["looks"]
    steps = math.ceil(HALF_HOUR / step)
    items = max(s.items for s in sets)
    half_an_hour = plan_watch(sets, None, steps, math.ceil(steps / 4), HALF_HOUR, lambda n: told * n / items)
    taken = row["config"]["watch_items"]
    each = (
        look_seconds(row) * sum(min(s.items, half_an_hour.items) for s in sets) / sum(min(s.items, taken) for s in sets)
    )
    looking = half_an_hour.looks * each
    return looking / (HALF_HOUR + looking)


def main() -> None:
    """Run, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watch.bench", description=__doc__)
    parser.add_argument("--rows", type=Path, help="JSONL of question, choices, answer (an index)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the bad runs (default: %(default)s)")
    parser.add_argument(
        "--items",
        type=int,
        default=ITEMS,
        help="rows or questions of each set that a look takes (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder of result.json, README.md and the plots")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rankwise-bench-") as place:
        result = measured(asked, Path(place))
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (asked.out / "README.md").write_text(readme(result), encoding="utf-8")
    (asked.out / "frontier.svg").write_text(frontier_svg(result["rows"]), encoding="utf-8")
    (asked.out / "steps.svg").write_text(steps_svg(result["rows"]), encoding="utf-8")
    sys.stdout.write(readme(result))


if __name__ == "__main__":
    main()
