"""One JSON object a line on standard error. Prompts are not among it, and keys never are."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

LOG = logging.getLogger("rankwise.serve")
_TAKEN_OVER = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class _Lines(logging.Formatter):
    """Args of a record that is logged with `extra={"fields": {...}}` stand beside the event."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            # Where it happened, not with which values: a message may quote what a client sent.
            line["error"], line["traceback"] = record.exc_info[0].__name__, _places(record)
        return json.dumps(line, ensure_ascii=False, default=str)


def _places(record: logging.LogRecord) -> list[str]:
    import traceback

    assert record.exc_info is not None
    return [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(record.exc_info[2])]


def log_to(stream: TextIO = sys.stderr) -> None:
    """Send what the gateway and uvicorn say there, and nowhere else."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Lines())
    for name in ("rankwise.serve", *_TAKEN_OVER):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == "rankwise.serve" else logging.WARNING)
    logging.getLogger("uvicorn.access").handlers = []  # it would write paths as clients send them


def log(event: str, level: int = logging.INFO, fault: BaseException | None = None, **fields: Any) -> None:
    LOG.log(level, event, exc_info=fault, extra={"fields": fields})
