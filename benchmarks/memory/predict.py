"""Predictions through the product's public path: `rankwise.api.estimate_batch`, as `rankwise estimate --batch-file`."""

import json
import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

STATISTICS = ("allocated", "reserved", "device")
CHUNK = 6


@dataclass(frozen=True)
class Answer:
    """What the command says of one set of options: bytes of one GPU, or its refusal.

    Attributes:
        peaks: statistic -> predicted bytes; empty where it refused.
        fits: into the GPU that was named.
        capacity: bytes of that GPU.
        said: the refusal.
    """

    peaks: Mapping[str, int]
    fits: bool | None = None
    capacity: int | None = None
    said: str | None = None


def key_of(options: Mapping[str, Any]) -> str:
    """Equal options, equal key."""
    return json.dumps(options, sort_keys=True)


def predict(wanted: Sequence[Mapping[str, Any]], workers: int) -> dict[str, Answer]:
    """key -> answer, each set of options priced once. Progress goes to standard error."""
    entries = list({key_of(options): dict(options) for options in wanted}.values())
    chunks = [entries[at : at + CHUNK] for at in range(0, len(entries), CHUNK)]
    answers: dict[str, Answer] = {}
    began = time.monotonic()
    if workers == 1:
        for chunk in chunks:
            answers |= price(chunk)
            _say(len(answers), len(entries), began)
        return answers
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(price, chunk) for chunk in chunks]):
            answers |= done.result()
            _say(len(answers), len(entries), began)
    return answers


def price(entries: Sequence[Mapping[str, Any]]) -> dict[str, Answer]:
    """One batch, as the command prices it."""
    from rankwise.api import estimate_batch

    outcomes = [outcome for _, outcome in estimate_batch(entries)]
    return {key_of(options): _answer(outcome) for options, outcome in zip(entries, outcomes, strict=True)}


def _answer(outcome: Any) -> Answer:
    if isinstance(outcome, Exception):
        return Answer({}, said=str(getattr(outcome, "what", outcome)))
    memory = outcome.memory
    return Answer(
        {name: getattr(memory, f"peak_{name}") for name in STATISTICS}, fits=memory.fits, capacity=memory.capacity
    )


def _say(done: int, total: int, began: float) -> None:
    sys.stderr.write(f"\r{done} of {total} configurations, {time.monotonic() - began:.0f} s")
    sys.stderr.write("\n" if done == total else "")
    sys.stderr.flush()
