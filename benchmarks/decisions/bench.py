"""`python -m benchmarks.decisions.bench`: our call on published head-to-heads; writes result.json and README.md.

Nothing is trained and nothing is downloaded. The ledger of this machine takes no part, so that the calls are those of a
fresh installation.
"""

import argparse
import json
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from benchmarks.decisions.call import CALLERS, Call
from benchmarks.decisions.case import FOLDER, Case, Sourced, flat, read_cases
from benchmarks.decisions.compare import OURS, metrics, row
from benchmarks.decisions.readme import readme
from benchmarks.memory.bench import commit, machine, versions
from rankwise.errors import RankwiseError

HERE = Path(__file__).parent
EXPLAINED = HERE / "explained.toml"
INTERRUPTED = 130


def calls(case: Case) -> dict[str, Call]:
    """What everybody calls. A case that a caller refuses is a call of nothing at all, with the reason."""
    made = {}
    for name, caller in CALLERS.items():
        try:
            made[name] = caller(case)
        except RankwiseError as error:
            made[name] = Call(method="refused", said=f"refused: {str(error).splitlines()[0]}")
    return made


def result_of(files: Sequence[Sourced], explained: Mapping[str, str]) -> dict[str, Any]:
    """Everything that result.json holds."""
    cases = flat(files)
    progress = track(cases, "deciding", console=Console(stderr=True), transient=True)
    rows = [row(source, case, calls(case)) for source, case in progress]
    misses = {of["id"] for of in rows if not of["calls"][OURS]["agree"]}
    return {
        "metrics": metrics(rows),
        "commit": commit(),
        "versions": versions({}),
        "machine": machine(),
        "sources": [of.source.model_dump(mode="json") | {"cases": len(of.cases)} for of in files],
        "explained": {name: explained[name] for name in sorted(misses & explained.keys())},
        "rows": rows,
    }


def main() -> int:
    """Decide every case, compare, write, and print the metrics."""
    parser = argparse.ArgumentParser(description="Our call on published head-to-heads.")
    parser.add_argument("--cases", type=Path, default=FOLDER, help="Folder of the files of cases.")
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "RANKWISE_LEDGER": "off"}
    files = read_cases(asked.cases)
    explained = tomllib.loads(EXPLAINED.read_text(encoding="utf-8"))
    try:
        result = result_of(files, explained)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was written\n")
        return INTERRUPTED
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (asked.out / "README.md").write_text(readme(result), encoding="utf-8")
    for name, value in result["metrics"].items():
        sys.stdout.write(f"{name:45} {value:10.4f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
