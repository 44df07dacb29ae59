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
from rankwise.observe.machine import usable_cores
from rankwise.store import cache_folder, now, write_text

KEPT_FOR = timedelta(days=30)


@dataclass(frozen=True)
class Rate:
    """FLOP/s per dtype (bf16, fp32), and when it was measured (UTC, ISO 8601)."""

    flops: dict[str, float]
    measured_at: str


def measured_rate(device: str, name: str) -> Rate:
    """The rate of `cpu` or `cuda`; measured again after 30 days, or with another device, thread count or torch.

    Raises:
        RankwiseError: torch is missing, or cannot use the device.
    """
    store = cache_folder() / "matmul.json"
    key = " | ".join([device, name, f"{usable_cores()} cores", os.environ.get("OMP_NUM_THREADS", ""), _torch()])
    known = _read(store)
    found = _fresh(known.get(key))
    if found is None:
        found = Rate(_probe(device), now())
        entry = {**found.flops, "measured_at": found.measured_at}
        write_text(store, json.dumps({**_read(store), key: entry}, indent=1) + "\n")
    return found


def _fresh(entry: Any) -> Rate | None:
    try:
        if datetime.now(UTC) - datetime.fromisoformat(entry["measured_at"]) > KEPT_FOR:
            return None
        return Rate({d: float(entry[d]) for d in ("bf16", "fp32")}, entry["measured_at"])
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
        return {dtype: float(said[dtype]) for dtype in ("bf16", "fp32")}
    except (subprocess.SubprocessError, ValueError, KeyError) as error:
        last = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        raise RankwiseError(
            f"the matrix-multiplication probe on {device} failed: {last}",
            expected="torch in this environment"
            + (" with CUDA, since nvidia-smi sees a GPU" if device == "cuda" else ""),
            fix="check the installation with `python -c 'import torch'`"
            + ("; `hardware: cpu` plans without the GPU" if device == "cuda" else ""),
        ) from None
