"""`python -m benchmarks.merge.bench`: a LoRA adapter of rank 16 merged by us, by PEFT's merge_and_unload, and the files
of the base copied with fsync, each in a process of its own, over a random checkpoint of Mistral-7B's shapes (14.5 GB,
written first and removed at the end) and over the embedded model. Writes result.json and README.md. About 15 minutes
on an idle machine whose disk writes 300 MB/s; needs 30 GB of disk, and 16 GB of memory for PEFT.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.memory.bench import commit, machine, versions
from benchmarks.merge.arms import run
from benchmarks.merge.readme import readme
from benchmarks.merge.synthetic import write_adapter, write_base

HERE = Path(__file__).parent
LIMIT_BYTES = 300e6  # beside the interpreter and four times the largest tensor
# In turn, so that a machine that grows slower meets all of them; the slowest once.
ORDER = ("copy", "ours", "peft", "ours", "copy", "ours", "copy")


def measured(asked: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Everything that result.json holds."""
    rows = []
    for model, (base, adapter) in {"7b": _synthetic(place, asked.layers), "embedded": _embedded(place)}.items():
        largest = largest_tensor(base)
        for arm in ORDER:
            found = run(arm, base, adapter, place / "out")
            rows.append({"model": model, "largest_tensor_bytes": largest, **found})
            sys.stderr.write(f"{model} {arm}: {found.get('seconds', found.get('error'))}\n")
        if model == "7b":
            shutil.rmtree(base)
    return {
        "metrics": metrics(rows),
        "rows": rows,
        "layers": asked.layers,
        "commit": commit(),
        "versions": versions({}),
        "machine": machine(),
    }


def _synthetic(place: Path, layers: int) -> tuple[Path, Path]:
    return write_base(place / "7b", layers), write_adapter(place / "7b-adapter", layers)


def _embedded(place: Path) -> tuple[Path, Path]:
    """The embedded model, and an untrained adapter of it whose matrices are all filled."""
    import torch
    from peft import LoraConfig, get_peft_model

    from rankwise.model.load import load_base
    from rankwise.model.locate import locate

    folder, adapter = locate("embedded"), place / "embedded-adapter"
    config = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    config.init_lora_weights = False  # type: ignore[assignment]  # PEFT's own way to fill B as well
    torch.manual_seed(0)
    get_peft_model(load_base(folder, dtype="bf16"), config).save_pretrained(str(adapter))
    return folder, adapter


def largest_tensor(base: Path) -> int:
    """Bytes."""
    from rankwise.export.mergebase import BaseFiles

    return BaseFiles.open(base).largest()


def metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Flat name -> number, from the raw rows; those of the embedded model have its name before them."""
    made: dict[str, float] = {}
    for model, before in (("7b", ""), ("embedded", "embedded_")):
        own = [r for r in rows if r["model"] == model and "error" not in r]
        seconds = {arm: median(r["seconds"] for r in own if r["arm"] == arm) for arm in {r["arm"] for r in own}}
        peak = max(over_limit(r) for r in own if r["arm"] == "ours")
        made[f"{before}time_vs_copy"] = seconds["ours"] / seconds["copy"]
        made[f"{before}peak_mb_over_limit"] = peak / 1e6
        made[f"{before}peak_mb"] = max(used(r) for r in own if r["arm"] == "ours") / 1e6
        if "peft" in seconds:
            made[f"{before}time_vs_peft"] = seconds["ours"] / seconds["peft"]
            made[f"{before}peft_peak_mb"] = max(used(r) for r in own if r["arm"] == "peft") / 1e6
    return made


def used(row: Mapping[str, Any]) -> float:
    """Peak memory over interpreter and imports, bytes."""
    return float(row["peak_bytes"] - row["imports_bytes"])


def over_limit(row: Mapping[str, Any]) -> float:
    """Below zero where the limit is kept."""
    return used(row) - 4 * row["largest_tensor_bytes"] - LIMIT_BYTES


def main() -> None:
    """Run, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merge.bench", description=__doc__)
    parser.add_argument("--layers", type=int, default=32, help="of the 7B-shaped checkpoint (default: %(default)s)")
    parser.add_argument("--place", type=Path, help="folder on the disk to measure (default: the temporary folder)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of result.json and README.md")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rankwise-bench-", dir=asked.place) as place:
        result = measured(asked, Path(place))
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (asked.out / "README.md").write_text(readme(result), encoding="utf-8")
    sys.stdout.write(readme(result))


if __name__ == "__main__":
    main()
