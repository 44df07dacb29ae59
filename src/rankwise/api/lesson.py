"""The tables and claims of a published lesson, computed."""

from collections.abc import Sequence
from pathlib import Path

from rankwise.api.estimating import estimate
from rankwise.api.planning import plan
from rankwise.api.progress import Progress, quiet
from rankwise.errors import RunError, UsageError
from rankwise.estimate.lesson.tables import PARTS, build_tables
from rankwise.files import write_text
from rankwise.observe.devices import observe_device
from rankwise.records.job import Hardware
from rankwise.records.tables import Tables
from rankwise.report.tables_page import tables_page
from rankwise.version import __version__


def tables(
    only: Sequence[str] = (), gpu: str | None = None, prices: Path | None = None, progress: Progress = quiet
) -> Tables:
    """The memory and cost tables of a published lesson and its claims, each computed by `estimate` and `plan`.

    Args:
        only: some of memory, cost, claims; empty: all of them.
        gpu: one kind of GPU for the tables, instead of the lesson's three.
        prices: a file of prices that are used instead of ours.

    Raises:
        UsageError: no such part, GPU or file of prices.
    """
    if unknown := [part for part in only if part not in PARTS]:
        raise UsageError(f"there is no part {unknown[0]}", expected=f"some of {', '.join(PARTS)}")
    device = observe_device(Hardware(gpu=gpu)) if gpu else None
    if device is not None and device.kind != "gpu":
        raise UsageError(f"{gpu} is no GPU: the tables count GPUs", expected="a name from `rankwise gpus`")
    return build_tables(
        lambda asked: estimate(**asked),
        lambda asked: plan(**asked),
        parts=[part for part in PARTS if not only or part in only],
        gpu=device.name if device else None,
        more={"prices": str(prices)} if prices else None,
        progress=progress,
    )


def write_tables(found: Tables, out: Path) -> Path:
    """The tables as one HTML file. Raises RunError where it cannot be written."""
    try:
        write_text(out, tables_page(found, version=__version__))
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error}", fix="name another file with --out") from None
    return out
