"""The one folder in which runs, comparisons and data are looked up. A request names them; a listing has their paths."""

import re
from collections.abc import Iterator
from pathlib import Path

from rankwise import api
from rankwise.errors import RunError
from rankwise.store import Run, list_runs

DATA = frozenset({".jsonl", ".json", ".csv", ".parquet", ".arrow"})
DEEPEST = 4  # folders below the root in which data is looked for
MOST = 500  # files of data that are listed
NAME_OR_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")  # of a model
PASSED_OVER = frozenset({"node_modules", "__pycache__", "checkpoints", "site-packages", "comparisons"})


def run_names(root: Path) -> dict[str, Run]:
    """Runs in `runs/` and directly below the root by their folder's name, oldest first; `runs/` goes first."""
    found = {run.folder.name: run for run in list_runs(root) if _inside(run.folder, root)}
    return found | {run.folder.name: run for run in list_runs(root / "runs") if _inside(run.folder, root)}


def run_named(root: Path, name: str) -> Run:
    """Raises RunError for a name that the listing does not have."""
    found = run_names(root).get(name)
    if found is None:
        raise RunError(f"there is no run {name!r} here", fix="the page Runs lists them")
    return found


def comparison_names(root: Path) -> dict[str, Path]:
    """Comparisons in `comparisons/`, `runs/` and directly below the root by their folder's name."""
    found: dict[str, Path] = {}
    for folder in (root, root / "runs", root / "comparisons"):
        paths = [Path(line["comparison"]) for line in api.list_comparisons(folder)]
        found |= {path.name: path for path in paths if _inside(path, root)}
    return found


def data_names(root: Path) -> dict[str, Path]:
    """Files of training rows below the root by their path from there, at most MOST; folders of runs are passed over."""
    found: dict[str, Path] = {}
    for path in _data(root, DEEPEST):
        if len(found) == MOST:
            break
        if _inside(path, root):
            found[path.relative_to(root).as_posix()] = path
    return found


def _data(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    if any(path.name in ("plan.json", "config.json") for path in entries):
        return  # a run's own files, or a model's
    yield from (p for p in entries if p.suffix in DATA and p.is_file())
    for inner in entries:
        hidden = inner.name.startswith(".") or inner.name in PASSED_OVER
        if depth and not hidden and inner.is_dir() and not inner.is_symlink():
            yield from _data(inner, depth - 1)


def model_names(root: Path) -> dict[str, Path]:
    """Folders below the root that hold a base model with its tokenizer, by their path from there, at most MOST."""
    found = [folder for folder in _folders(root, DEEPEST) if (folder / "tokenizer.json").is_file()]
    whole = [folder for folder in found if (folder / "config.json").is_file() and _inside(folder, root)]
    return {folder.relative_to(root).as_posix(): folder for folder in whole[:MOST]}


def model_named(root: Path, name: str) -> str | None:
    """A name or a Hub id as it is, a folder below the root as its path; None: no other path reaches the disk."""
    if "\0" in name:
        return None
    below = (root / name).resolve()
    if below.is_dir() and below.is_relative_to(root) and below != root:
        return str(below)
    known = NAME_OR_ID.fullmatch(name) and not Path(name).exists()
    return name if known else None


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for inner in entries:
        hidden = inner.name.startswith(".") or inner.name in PASSED_OVER
        if not hidden and inner.is_dir() and not inner.is_symlink():
            yield inner
            if depth and not (inner / "plan.json").exists():
                yield from _folders(inner, depth - 1)


def _inside(path: Path, root: Path) -> bool:
    """Does it lie below the root, links followed?"""
    return path.resolve().is_relative_to(root)
