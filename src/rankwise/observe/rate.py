"""How fast this machine multiplies matrices: measured in a subprocess (torch stays out of this one), remembered."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rankwise.errors import RankwiseError
from rankwise.files import cache_folder, write_text
from rankwise.observe.machine import usable_cores
from rankwise.store import now

KEPT_FOR = timedelta(days=30)
# Beside other programs a rate is that of the moment: 21 GFLOP/s once stayed for a month where 160 are usual.
DISTURBED, DISTURBED_KEPT_FOR = 0.8, timedelta(hours=1)
MEASURED = ("bf16", "fp32", "undisturbed")


@dataclass(frozen=True)
class Rate:
    """How fast, and how well that is known.

    Attributes:
        flops: FLOP/s per dtype (bf16, fp32).
        measured_at: UTC, ISO 8601.
        undisturbed: share of the processor time it asked for that it was given meanwhile.
    """

    flops: dict[str, float]
    measured_at: str
    undisturbed: float = 1.0

    @property
    def source(self) -> str:
        """In words."""
        beside = " beside other programs" if self.undisturbed < DISTURBED else ""
        return f"2048 x 2048 matmuls measured {self.measured_at[:10]}{beside}"


def measured_rate(device: str, name: str) -> Rate:
    """The rate of `cpu` or `cuda`; measured again after 30 days (an hour where other programs ran beside it), or with
    another device, thread count or torch.

    Raises:
        RankwiseError: torch is missing, or cannot use the device.
    """
    store = cache_folder() / "matmul.json"
    key = " | ".join([device, name, f"{usable_cores()} cores", os.environ.get("OMP_NUM_THREADS", ""), _torch()])
    known = _read(store)
    found = _fresh(known.get(key))
    if found is None:
        measured = _probe(device)
        found = Rate({d: measured[d] for d in ("bf16", "fp32")}, now(), measured["undisturbed"])
        entry = {**measured, "measured_at": found.measured_at}
        write_text(store, json.dumps({**_read(store), key: entry}, indent=1) + "\n")
    return found


def _fresh(entry: Any) -> Rate | None:
    try:
        share = float(entry["undisturbed"])
        kept_for = DISTURBED_KEPT_FOR if share < DISTURBED else KEPT_FOR
        if datetime.now(UTC) - datetime.fromisoformat(entry["measured_at"]) > kept_for:
            return None
        return Rate({d: float(entry[d]) for d in ("bf16", "fp32")}, entry["measured_at"], share)
    except (KeyError, TypeError, ValueError):
        return None


def _read(store: Path) -> dict[str, Any]:
    """What is remembered; nothing when the file is missing or damaged, since it can be made again."""
    try:
        known = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _torch() -> str:
    try:
        return f"torch {version('torch')}"
    except PackageNotFoundError:
        return "no torch"


def _probe(device: str) -> dict[str, float]:
    ours = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(p for p in (ours, os.environ.get("PYTHONPATH", "")) if p)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "rankwise.model.matmul", device],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        said = json.loads(done.stdout)
        return {name: float(said[name]) for name in MEASURED}
    except (subprocess.SubprocessError, ValueError, KeyError) as error:
        last = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        raise RankwiseError(
            f"the matrix-multiplication probe on {device} failed: {last}",
            expected="torch in this environment"
            + (" with CUDA, since nvidia-smi sees a GPU" if device == "cuda" else ""),
            fix="check the installation with `python -c 'import torch'`"
            + ("; `hardware: cpu` plans without the GPU" if device == "cuda" else ""),
        ) from None
