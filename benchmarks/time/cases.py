"""Rows -> cases: what the product's own path makes of the options, a traced step on a named device."""

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.time.rows import Row

CHUNK = 6


@dataclass(frozen=True)
class Case:
    """A row with its traced step. `refused`: what the product said instead; then the rest is None."""

    row: Row
    setup: Any = None
    trace: Any = None
    gpu: str | None = None
    nodes: int = 1
    mean_length: float = 0.0
    refused: str | None = None


def cases(rows: Sequence[Row], workers: int) -> list[Case]:
    """The mapped rows, in order. Progress goes to standard error."""
    wanted = [row for row in rows if row.options is not None]
    chunks = [wanted[at : at + CHUNK] for at in range(0, len(wanted), CHUNK)]
    made: dict[str, Case] = {}
    began = time.monotonic()
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_trace_all, chunk) for chunk in chunks]):
            made |= {case.row.id: case for case in done.result()}
            sys.stderr.write(f"\r{len(made)} of {len(wanted)} steps traced, {time.monotonic() - began:.0f} s")
            sys.stderr.flush()
    sys.stderr.write("\n")
    return [made[row.id] for row in wanted]


def _trace_all(rows: Sequence[Row]) -> list[Case]:
    return [trace_of(row) for row in rows]


def trace_of(row: Row) -> Case:
    """The step that the row's options mean, traced."""
    from rankwise.api import configuration
    from rankwise.errors import RankwiseError
    from rankwise.estimate.memory import device_name
    from rankwise.estimate.traced import traced
    from rankwise.observe.devices import observe_device
    from rankwise.records.job import Hardware

    assert row.options is not None
    try:
        with tempfile.TemporaryDirectory() as folder:
            asked = configuration(_with_config_file(row.options, Path(folder)))
        device = observe_device(Hardware(gpu=asked.gpu, count=asked.gpus, nodes=asked.nodes))
        setup = asked.setup(device_name(device))
        return Case(row, setup, traced(setup), device.name, asked.nodes, asked.tokens_per_example or asked.seq_len)
    except RankwiseError as error:
        return Case(row, refused=error.what)


def _with_config_file(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A config that a row brings with it is named as a file, as a person would."""
    if "config" not in options:
        return options
    path = folder / "config.json"
    path.write_text(json.dumps(options["config"]), encoding="utf-8")
    return {key: value for key, value in options.items() if key != "config"} | {"model": str(path)}
