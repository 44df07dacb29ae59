"""A published folder copied as it is: adapter or model, with tokenizer, card, licence and lineage. Torch-free."""

import shutil
from collections.abc import Callable
from pathlib import Path


def copy_published(source: Path, target: Path, progress: Callable[[int], None]) -> None:
    """Copy every file below `source` into an existing folder.

    Args:
        progress: called with the bytes that are copied so far.
    """
    done = 0
    for file in sorted(p for p in source.rglob("*") if p.is_file()):
        there = target / file.relative_to(source)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, there)
        done += file.stat().st_size
        progress(done)
