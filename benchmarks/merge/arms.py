"""`python -m benchmarks.merge.arms ARM BASE ADAPTER OUT`: one merge in a process of its own; prints what it took.

    ours    our merge
    peft    PEFT's merge_and_unload in bf16, as users do it: load, merge, save
    copy    the files of the base copied

Each ends when its files are on disk (fsync), and begins when its libraries and the model's class are imported.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ARMS = ("ours", "peft", "copy")


def ours(base: Path, adapter: Path, out: Path) -> Callable[[], None]:
    """Imports what it needs, and returns the work."""
    from rankwise.export.merge import write_merge
    from rankwise.export.mergeplan import Wanted
    from rankwise.model.skeleton import skeleton

    skeleton(base)  # imports the model's class
    return lambda: _ignored(write_merge(base, [adapter], out, Wanted()))


def peft(base: Path, adapter: Path, out: Path) -> Callable[[], None]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from rankwise.model.skeleton import skeleton

    skeleton(base)

    def work() -> None:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, local_files_only=True)
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        merged.save_pretrained(out, max_shard_size="5GB")
        synced(out)

    return work


def copy(base: Path, adapter: Path, out: Path) -> Callable[[], None]:
    def work() -> None:
        out.mkdir(parents=True)
        for file in sorted(base.iterdir()):
            shutil.copyfile(file, out / file.name)
        synced(out)

    return work


def synced(folder: Path) -> None:
    """Every file of a folder is on disk."""
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def _ignored(done: Any) -> None:
    """A record that only the product reads."""


def peak_bytes() -> int:
    """Most memory that this process had at any time (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def run(arm: str, base: Path, adapter: Path, out: Path) -> dict[str, Any]:
    """One arm in a process of its own, over files that the page cache does not hold; its output is removed."""
    os.sync()
    for file in [*base.iterdir(), *adapter.iterdir()]:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    command = [sys.executable, "-m", "benchmarks.merge.arms", arm, str(base), str(adapter), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    written = sum(f.stat().st_size for f in out.glob("*.safetensors")) if out.is_dir() else 0
    shutil.rmtree(out, ignore_errors=True)
    if done.returncode:
        return {"arm": arm, "error": (done.stderr.strip().splitlines() or [f"killed: {done.returncode}"])[-1]}
    return {"arm": arm, **json.loads(done.stdout.strip().splitlines()[-1]), "written_bytes": written}


def main() -> None:
    arm, base, adapter, out = sys.argv[1], *map(Path, sys.argv[2:5])
    work = {"ours": ours, "peft": peft, "copy": copy}[arm](base, adapter, out)
    imported, began = peak_bytes(), time.perf_counter()
    work()
    said = {"seconds": time.perf_counter() - began, "imports_bytes": imported, "peak_bytes": peak_bytes()}
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
