"""Which data files that a configuration names are here."""

from pathlib import Path
from typing import Any

from rankwise.observe.recipes.launch import find
from rankwise.observe.recipes.reading import Source
from rankwise.text.sources import ENDINGS, ending_of


def local_file(source: Source, *names: Any) -> str | None:
    """The first of these that is a file of rows, beside the configuration or here; None for one of the hub."""
    for name in names:
        if not isinstance(name, str) or not name:
            continue
        path = Path(name).expanduser()
        if ending_of(path) not in ENDINGS:
            continue
        if (found := find(str(path), source.folder)) is not None:
            return str(found.resolve())
    return None
