"""`python -m benchmarks.lesson.bench`: the lesson's claims as eight experiments; writes result.json, README.md, the
plots and, where all of it counts, docs/lesson-tested.md.

Each piece of work writes its own JSON below the work folder as soon as it ends, so that a run that is killed goes on
where it was. With QUICK=1 everything runs small, and nothing that comes out of it counts.
"""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.lesson.jobs import Bench, do_all
from benchmarks.lesson.kinds import KINDS
from benchmarks.lesson.plot import plots
from benchmarks.lesson.predictions import NAMES, read
from benchmarks.lesson.readme import readme
from benchmarks.lesson.result import jobs_of, result_of
from benchmarks.lesson.scale import FULL, QUICK
from benchmarks.lesson.words import in_words
from rankwise.files import cache_folder, write_text

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "lesson-tested.md"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lesson.bench", description=__doc__)
    parser.add_argument("--only", type=_names, default=list(NAMES), help="some of X1 to X8, with commas between them")
    parser.add_argument("--seeds", type=int, help=f"of every arm (default: {FULL.seeds}, with QUICK=1 {QUICK.seeds})")
    parser.add_argument("--out", type=Path, help="folder of result.json, README.md and the plots (default: this one)")
    parser.add_argument("--work", type=Path, help="folder of what is done already (default: below the cache)")
    parser.add_argument("--pause-while", type=Path, metavar="FILE", help="compute nothing while this file exists")
    parser.add_argument("--go-on", action="store_true", help="take what result.json of --out holds as done")
    parser.add_argument("--report-only", action="store_true", help="run nothing, write what there is")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in NAMES]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: expected some of {', '.join(NAMES)}")
    return names


def write(out: Path, result: dict[str, Any], page: Path | None) -> None:
    """All files that are made of a result."""
    write_text(out / "result.json", json.dumps(result, indent=1, allow_nan=False) + "\n")
    write_text(out / "README.md", readme(result))
    for name, svg in plots(result).items():
        write_text(out / name, svg)
    if page is not None:
        write_text(page, in_words(result))


def main() -> None:
    """Run what is missing, write, print."""
    asked = options()
    scale = QUICK if os.environ.get("QUICK") == "1" else FULL
    if asked.seeds:
        scale = dataclasses.replace(scale, seeds=asked.seeds)
    work = asked.work or cache_folder() / "lesson" / ("counted" if scale.counted else "quick")
    torch.set_num_threads(1)  # a second one spins on a machine that others use, too
    predictions = read()
    out = asked.out or (HERE if scale.counted else work)
    bench = Bench(work, scale, KINDS, predictions.hash, pause=asked.pause_while, only_read=asked.report_only)
    if asked.go_on:
        taken = bench.take(json.loads((out / "result.json").read_text(encoding="utf-8")))
        sys.stderr.write(f"{taken} jobs taken from {out / 'result.json'}\n")
    if not asked.report_only:
        try:
            do_all(bench, jobs_of(bench, asked.only))
        except KeyboardInterrupt:
            raise SystemExit(f"stopped; the same command goes on from what is in {work}") from None
    bench.only_read = True
    result = result_of(bench, predictions)
    write(out, result, PAGE if out == HERE else None)
    for name, found in result["experiments"].items():
        sys.stdout.write(f"{name} {found['title']}: {found['outcome'] if scale.counted else 'ran (not counted)'}\n")
    sys.stdout.write(f"{out / 'result.json'}\n")


if __name__ == "__main__":
    main()
