"""Around lm-evaluation-harness: its log is collected, its bars and prints are dropped, its seeds stay inside."""

import logging
import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch

from rankwise.model.load import quiet_transformers

PYTHON_SEED, SEED = 0, 1234  # lm-evaluation-harness's own defaults: of `random`, and of everything else
MOST_WARNINGS = 5


class Heard(logging.Handler):
    """What the harness warned of, each sentence once, numbers left aside."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: dict[str, tuple[str, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        said = " ".join(record.getMessage().split())[:300]
        key = re.sub(r"\d+", "#", said)
        self.seen[key] = (self.seen.get(key, (said, 0))[0], self.seen.get(key, (said, 0))[1] + 1)

    def notes(self) -> list[str]:
        """The first few; how often, where it was more than once."""
        times = [f"{said} ({count} times)" if count > 1 else said for said, count in self.seen.values()]
        return times[:MOST_WARNINGS]


@contextmanager
def quiet_harness() -> Iterator[Heard]:
    """Nothing of the harness, of datasets and of transformers on the terminal inside: its log is collected, its bars
    and prints are dropped (it prints on standard output, too). It starts no processes of its own.
    """
    import datasets

    heard, log = Heard(), logging.getLogger("lm_eval")
    before = (log.level, log.propagate, datasets.is_progress_bar_enabled(), os.environ.get("DISABLE_MULTIPROC"))
    levels = {name: logging.getLogger(name).level for name in ("datasets", "evaluate")}
    log.addHandler(heard)
    log.propagate = False
    log.setLevel(logging.WARNING)
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    os.environ["DISABLE_MULTIPROC"] = "1"  # a bootstrap that forks a process with a model in it
    try:
        with Path(os.devnull).open("w") as sink, redirect_stdout(sink), redirect_stderr(sink), quiet_transformers():
            yield heard
    finally:
        log.removeHandler(heard)
        log.setLevel(before[0])
        log.propagate = before[1]
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if before[2]:
            datasets.enable_progress_bars()
        _restore("DISABLE_MULTIPROC", before[3])


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The harness's seeds inside; after, every generator goes on where it was: training may be under way."""
    kept = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        random.seed(PYTHON_SEED)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])
