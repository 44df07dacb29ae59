"""A merge in a process of its own: how much memory it takes, and what a kill leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmarks.merge.arms import run
from benchmarks.merge.bench import over_limit, used
from peft import LoraConfig
from safetensors.torch import load_file

from rankwise.export.merge import fold
from rankwise.export.mergebase import BaseFiles
from tests.export.merging import adapter_of
from tests.tiny import tiny_llama_untied
from tests.training import environment


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a base of 300 MB whose largest tensor has 33, an adapter)."""
    root = tmp_path_factory.mktemp("large")
    base = tiny_llama_untied(root / "base", vocab=16000, hidden=1024, intermediate=4096, layers=8, heads=8)
    config = LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear")
    return base, adapter_of(base, root / "adapter", config)


def test_memory_stays_within_four_times_the_largest_tensor(large: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = large
    files = BaseFiles.open(base)
    took = {"largest_tensor_bytes": files.largest(), **run("ours", base, adapter, tmp_path / "out")}
    weights = sum(t.bytes for t in files.tensors.values())
    assert "error" not in took, took
    assert weights > 250e6 and over_limit(took) < 0
    assert used(took) < weights / 2  # the model was never in memory


def test_killed_in_the_middle_there_is_no_model_and_a_second_merge_works(
    large: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapter = large
    out = tmp_path / "out"
    code = "import sys; from pathlib import Path; from rankwise.export.merge import fold\n"
    code += "fold(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), dtype='bf16')"
    process = subprocess.Popen([sys.executable, "-c", code, base, adapter, out], env=environment())
    end = time.monotonic() + 120
    while time.monotonic() < end and not list(tmp_path.glob(".out.*/*.safetensors")) and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    fold(base, adapter, out, dtype="bf16")
    before, after = (load_file(f / "model.safetensors") for f in (base, out))
    name = "model.layers.0.mlp.up_proj.weight"
    assert before.keys() == after.keys() and not torch.equal(before[name], after[name])
    assert json.loads((out / "config.json").read_text())["model_type"] == "llama"
