"""Makes traces, adapter files and shapes; as a process it makes them for another one.

    python -m rankwise.estimate.tracer

An order a line on standard input, {"kind": "traces", "content": {...}}; an answer a line on standard output, with
"record" or, where the order is refused, with "error". It ends when its input ends.
"""

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rankwise.errors import RankwiseError
from rankwise.records import AdapterFile, Record, Setup, Shapes, Trace


def make(kind: str, content: dict[str, Any]) -> Record:
    """What an `estimate.traced.Order` asks for.

    Raises:
        ModelError: transformers does not know the architecture, or cannot build it from this config.
        UsageError: a method, optimizer or combination that cannot be.
    """
    setup = Setup.model_validate(content) if kind != "shapes" else None
    adapter_file, shapes, trace = _makers()
    with _quiet():
        if setup is None:
            return shapes(content)
        return trace(setup) if kind == "traces" else AdapterFile(bytes=adapter_file(setup))


def _makers() -> tuple[Callable[[Setup], int | None], Callable[[dict[str, Any]], Shapes], Callable[[Setup], Trace]]:
    """Imported where something is made: this module is loaded by processes that never need torch."""
    from rankwise.trace.adapterfile import adapter_file
    from rankwise.trace.peaks import trace
    from rankwise.trace.shapes import shapes

    return adapter_file, shapes, trace


@contextmanager
def _quiet() -> Iterator[None]:
    """What libraries say to somebody who trains (a loss type, a name to come) says nothing of a price."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def main() -> None:
    """Serve standard input. A fault that is no RankwiseError ends the process, with its traceback on standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    _makers()  # before the first order: torch takes as long to import as a dozen orders
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = {"record": make(order["kind"], order["content"]).model_dump(mode="json")}
        except RankwiseError as error:
            answer = {"error": error.to_json()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
