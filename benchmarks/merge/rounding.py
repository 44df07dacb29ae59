"""`python -m benchmarks.merge.rounding RUN... [--out FILE]`: what merging into bf16 leaves of an adapter, rounded by
chance and to the nearest, for finished runs on a base in bf16. Both models compute in fp32, so that the weights alone
are compared. Half a minute for a run on the embedded model.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import load_file

from benchmarks.memory.bench import commit, machine, versions
from rankwise.api.loading import load_inputs, load_tuned
from rankwise.export.merge import fold, merge
from rankwise.export.proof.behaviour import mean_kl, row_logits
from rankwise.model.load import load_base
from rankwise.model.precision import in_fp32
from rankwise.records import Plan
from rankwise.records.merging import Rounding
from rankwise.store import Run


def measured(folder: Path) -> dict[str, Any]:
    """Of one run: its size, and a row for each way to round."""
    run = Run(folder)
    decided = run.plan()
    config = decided.verdict.config
    assert config is not None
    rows = load_inputs(decided)[2].validation
    tuned, as_base = load_tuned(run, decided)
    with in_fp32(tuned):
        adapter = torch.cat([row_logits(tuned, row) for row in rows])
        with as_base() as base:
            trained = mean_kl(adapter, torch.cat([row_logits(base, row) for row in rows]))
    with tempfile.TemporaryDirectory() as place:
        exact = Path(place) / "exact"
        fold(decided.facts.model.path, run.adapter, exact, dtype="fp32", new_tokens=decided.facts.new_tokens)
        ways = [_way(way, decided, run, Path(place), exact, rows, adapter) for way in get_args(Rounding)]
    return {
        "job": decided.job.name or folder.name,
        "steps": config.max_steps,
        "learning_rate": config.learning_rate,
        "positions": len(adapter),
        "kl_trained": trained,
        "ways": ways,
    }


def _way(
    way: Rounding, decided: Plan, run: Run, place: Path, exact: Path, rows: Any, adapter: torch.Tensor
) -> dict[str, Any]:
    merge(decided, run.adapter, place / way, rounding=way)
    model = load_base(place / way, dtype="bf16")
    with in_fp32(model):
        merged = torch.cat([row_logits(model, row) for row in rows])
    return {
        "rounding": way,
        **_kept(decided.facts.model.path, exact, place / way),
        "kl": mean_kl(adapter, merged),
        "largest_logit_difference": float((adapter - merged).abs().max()),
    }


def _kept(base: Path, exact: Path, merged: Path) -> dict[str, float]:
    """Over the weights that the adapter is on: the share that stayed the base's, and how much of the update is left
    along itself.
    """
    before, wanted, got = (load_file(folder / "model.safetensors") for folder in (base, exact, merged))
    same = count = 0
    along = square = 0.0
    for name, tensor in before.items():
        update = wanted[name].float() - tensor.float()
        if update.any():
            found = got[name].float() - tensor.float()
            same, count = same + int((found == 0).sum()), count + found.numel()
            along, square = along + float((found * update).sum()), square + float(update.square().sum())
    return {"unchanged": same / count, "left_of_the_update": along / square}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    found = {
        "runs": [measured(folder) for folder in asked.run],
        "commit": commit(),
        "versions": versions({}),
        "machine": machine(),
    }
    text = json.dumps(found, indent=2) + "\n"
    if asked.out:
        asked.out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
