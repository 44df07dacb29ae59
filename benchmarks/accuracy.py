"""How far the predictions are off, as one page: `python -m benchmarks.accuracy > docs/accuracy.md`.

Every figure is read from a result.json that a `make bench-…` wrote; nothing is measured here.
"""

import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def accuracy(folder: Path = HERE) -> str:
    """docs/accuracy.md, of the results below `folder`; what it shows of each stands in accuracy.toml."""
    sections = tomllib.loads((HERE / "accuracy.toml").read_text(encoding="utf-8"))["section"]
    return "\n".join([*_head(), *(line for section in sections for line in _section(section, folder)), *_foot()]) + "\n"


def _head() -> Iterator[str]:
    yield "# How accurate it is\n"
    yield "<!-- Written by `make docs` from the result.json files below benchmarks/; do not edit. -->\n"
    yield (
        "Every figure here comes from a benchmark that can be run again; its raw rows stand in "
        "`benchmarks/NAME/result.json`, so that it can be recomputed. Nothing of it was measured by us on a GPU: "
        "memory and time are held against what others published."
    )


def _section(section: dict[str, Any], folder: Path) -> Iterator[str]:
    yield f"\n## {section['title']}\n\n{section['about']}\n"
    result = folder / section["folder"] / "result.json"
    if not result.is_file():
        yield f"No result of `make {section['target']}` is kept with this version."
        return
    document = json.loads(result.read_text(encoding="utf-8"))
    asked = any("asked" in figure for figure in section["figures"])
    yield "| what | found |" + (" asked |" if asked else "")
    yield "| --- | --- |" + (" --- |" if asked else "")
    for figure in section["figures"]:
        found = _written(figure["form"], document["metrics"])
        yield f"| {figure['says']} | {found} |" + (f" {figure.get('asked', '')} |" if asked else "")
    page = f"benchmarks/{section['folder']}"
    more = (
        f" More of it: [{page}](../{page}/README.md)." if (folder / section["folder"] / "README.md").is_file() else ""
    )
    yield f"\n`make {section['target']}`, code {document['commit']}, {_machine(document['machine'])}.{more}"


def _written(form: str, metrics: dict[str, Any]) -> str:
    """The figure, or `unknown` where the result lacks what it is made of."""
    try:
        return form.format(**metrics).replace("%", " %")
    except (KeyError, TypeError, ValueError):
        return "unknown"


def _machine(machine: dict[str, Any]) -> str:
    return f"{machine['cpus']} cores of {machine['processor']}"


def _foot() -> Iterator[str]:
    yield "\n## Your own machine\n"
    yield (
        "Every run is held against its own prediction, and the factor that follows corrects the next one "
        "([calibration.md](calibration.md)); `rankwise doctor --cpu` and `--gpu` compare a step measured here with its "
        "trace."
    )


if __name__ == "__main__":
    sys.stdout.write(accuracy())
