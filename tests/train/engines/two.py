"""Two processes on this machine's CPU, and the runs that they carry out."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rankwise import api
from rankwise.files import cache_folder
from rankwise.store import Run
from tests.training import environment, toy_job
from tests.watched import ability_files

ROOT = Path(__file__).resolve().parents[3]


def missing_for_deepspeed() -> str:
    """Why DeepSpeed cannot run here; empty where it can. Its first start compiles a C++ operator, for a minute."""
    if importlib.util.find_spec("deepspeed") is None:
        return "the package deepspeed is not installed (make install)"
    tools = [name for name in ("g++", "ninja") if shutil.which(name, path=environment_of_two()["PATH"]) is None]
    return f"DeepSpeed compiles an operator with {' and '.join(tools)}, not found here" if tools else ""


def environment_of_two() -> dict[str, str]:
    """As a run has it; what DeepSpeed compiles is kept in the cache."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {"TORCH_EXTENSIONS_DIR": str(cache_folder() / "torch_extensions"), **os.environ}
    inside = environment()
    inside["PYTHONPATH"] = os.pathsep.join([inside["PYTHONPATH"], str(ROOT)])
    return {**kept, **inside, "PATH": path}


needs_deepspeed = pytest.mark.skipif(bool(missing_for_deepspeed()), reason=missing_for_deepspeed())


def carry(work: Sequence[Sequence[Any]], folder: Path, timeout: float = 400) -> None:
    """Have two processes do all of it."""
    file = folder / "work.json"
    file.write_text(json.dumps(work))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.train.engines.carry", str(file)],
        env=environment_of_two(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    errors = Path(f"{file}.errors")
    said = errors.read_text() if errors.is_file() else done.stderr[-3000:]
    assert done.returncode == 0, said


# 17 training rows in steps of 8: two whole ones, and a last step with a single row, for which a process has none.
SIZES = {"num_train_epochs": 1, "max_steps": 3, "save_steps": 1, "eval_steps": 1, "save_total_limit": 3}
EASY = {"bf16": False, "learning_rate": 1e-3, "weight_decay": 0.01}


def planned(folder: Path, model: Path, method: Any, parallel: str | None, **train: Any) -> Run:
    """A run of two processes x 2 rows x 2 passes, or of one process with the same 8 rows at once."""
    two = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "parallel": parallel}
    one = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    train = {**SIZES, **EASY, **(two if parallel else one), **train}
    hardware = {"gpu": "cpu", "count": 2 if parallel else 1}
    watched = {"watch_steps": 1, **ability_files(folder)}
    job = toy_job(folder, model, method, rows=23, hardware=hardware, train=train, forgetting=watched)
    return api.prepare(job, folder / "run", {})
