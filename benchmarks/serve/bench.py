"""`python -m benchmarks.serve.bench`: many adapters on one base, part by part, each in a process of its own.

Writes result.json and README.md. vLLM's part runs where it is installed (`make vllm`). About ten minutes on two idle
cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.memory.bench import commit, machine, versions
from benchmarks.serve.readme import readme
from benchmarks.serve.vllm import is_here

HERE = Path(__file__).parent
# modules of this folder that take --adapters and --out and write {"metrics", "rows"}
PARTS = ("engine", "gateway", "vllm")


def merged(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What result.json holds; every row says of which part it is."""
    return {
        "metrics": {name: value for part in parts.values() for name, value in part["metrics"].items()},
        "rows": [{"part": name, **row} for name, part in parts.items() for row in part["rows"]],
        "commit": commit(),
        "versions": versions({}),
        "machine": machine(),
    }


def main() -> None:
    """Run, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve.bench", description=__doc__)
    parser.add_argument("--adapters", type=Path, help="folder of benchmarks.serve.secret; made anew without")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of result.json and README.md")
    asked = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(prefix="rankwise-bench-") as place:
        adapters = asked.adapters or Path(place) / "adapters"
        for part in [part for part in PARTS if part != "vllm" or is_here()]:
            out = Path(place) / f"{part}.json"
            argv = [sys.executable, "-m", f"benchmarks.serve.{part}", "--adapters", str(adapters), "--out", str(out)]
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
            found[part] = json.loads(out.read_text(encoding="utf-8"))
    result = merged(found)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (asked.out / "README.md").write_text(readme(result), encoding="utf-8")
    sys.stdout.write(readme(result))


if __name__ == "__main__":
    main()
