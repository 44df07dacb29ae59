"""Published measurements as rows: what was measured, and the options of `rankwise estimate` that describe the run.

    python -m benchmarks.memory.rows [TABLE]      how many rows of a table are mapped, and why the others are not

The table has the columns of `subset.csv`. No rule looks at the measured bytes; `settings.py` has the rules for options.

Statistic  `mem_stat`: peak_allocated -> allocated; peak_reserved, reserved_p99 -> reserved; nvidia_smi, NVML -> device.
           "reserved or allocated", "active" and "unspecified" are refused: no one prediction compares with them. Totals
           over GPUs are divided by their number where the load is even (DDP, ZeRO, FSDP), and the note says so.
           Where `other_mem` prints the allocator's reserved peak, the process or nvidia-smi beside it (fitcheck,
           fms-acceleration, torchtune), these are rows of their own: same run, `id:reserved` and `id:device`.
Model      as written; "7B class" and the like name no model and are refused.
Refused    rows without a figure, rules of thumb and claims, grade X, vision, speech and reinforcement learning.
"""

import csv
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.memory.settings import NotMappedError, read_options

GIB = 2**30
FULL_TABLE = Path(__file__).resolve().parents[3] / "shared" / "measured" / "finetuning.csv"
SUBSET = Path(__file__).with_name("subset.csv")


@dataclass(frozen=True)
class Row:
    """One measurement: `measured`, `low` and `high` are bytes per GPU; exactly one of `options` and `reason` is set."""

    id: str
    source: str
    grade: str
    statistic: str
    measured: float | None
    low: float | None
    high: float | None
    options: dict[str, Any] | None
    reason: str | None
    note: str
    outcome: str


NOT_TEXT = re.compile(
    r"\b(vision|speech|audio|reinforcement|grpo|dpo|orpo|llava|radiology|emilia|image|ocr)\b|_ocr|radiology|emilia|llava|"
    r"orpo-dpo",
    re.IGNORECASE,
)


def read_rows(path: Path) -> list[Row]:
    """Every row of the table at `path`, mapped or with the reason why not. Raises OSError when it cannot be read."""
    rows = []
    with path.open(encoding="utf-8", newline="") as file:
        for cells in csv.DictReader(file):
            row = read_row(cells)
            rows += [row, *read_beside(row, cells)]
    return rows


MIB = 2**20
BESIDE: list[tuple[str, str, int]] = [
    ("reserved", r"^MiB:.*peak_reserved=([\d.]+)", MIB),
    ("device", r"^MiB:.*process=([\d.]+)", MIB),
    ("device", r"nvidia_smi=([\d.]+) MiB", MIB),
    ("reserved", r"peak_reserved=(\d+) B", 1),
]


def read_beside(row: Row, cells: Mapping[str, str]) -> Iterator[Row]:
    """Other statistics of the same run that the source prints beside an allocated peak."""
    if row.options is None or row.statistic != "allocated" or row.outcome != "ok":
        return
    for statistic, pattern, unit in BESIDE:
        if found := re.search(pattern, cells["other_mem"]):
            size = float(found.group(1)) * unit
            yield replace(row, id=f"{row.id}:{statistic}", statistic=statistic, measured=size, low=size, high=size)


def read_row(cells: Mapping[str, str]) -> Row:
    """One row of the table: identity, bytes, and options or the reason."""
    note: list[str] = []
    outcome = "oom" if cells["status"].startswith("oom") else "ok"
    measured = low = high = None
    statistic, options, reason = "", None, None
    try:
        statistic = read_statistic(cells, outcome)
    except NotMappedError as error:
        reason = str(error)
    try:
        refuse_unfit(cells)
        if reason is None:
            measured, low, high = read_bytes(cells, outcome, note)
            options = read_options(cells, note)
    except NotMappedError as error:
        reason = str(error)
    return Row(
        id=cells["id"],
        source=cells["source_repo"],
        grade=cells["grade"],
        statistic=statistic,
        measured=measured,
        low=low,
        high=high,
        options=options,
        reason=reason,
        note="; ".join(note),
        outcome=outcome,
    )


def read_statistic(cells: Mapping[str, str], outcome: str) -> str:
    """Allocated, reserved or device (what nvidia-smi shows)."""
    text = cells["mem_stat"].lower()
    if not text and outcome == "oom":
        return "device"
    if not text:
        raise NotMappedError("no memory figure")
    if " or " in text or "?" in text:
        raise NotMappedError("statistic ambiguous")
    if text.startswith("peak_allocated"):
        return "allocated"
    if text.startswith(("peak_reserved", "reserved_p99")):
        return "reserved"
    if "nvidia_smi" in text or "nvidia-smi" in text or text.startswith("nvml"):
        return "device"
    raise NotMappedError("statistic not one of allocated, reserved, device")


Bracket = tuple[float | None, float | None, float | None]


def read_bytes(cells: Mapping[str, str], outcome: str, note: list[str]) -> Bracket:
    """Measured, lowest and highest bytes of one GPU; the middle of the bracket where only that is known."""
    if outcome == "oom":
        if cells["status"] != "oom":
            raise NotMappedError("out of memory or failed for another cause, not told apart")
        return None, None, None
    share = gpu_share(cells, note)
    low, high = (float(cells[key] or 0) * GIB for key in ("peak_mem_gib_min", "peak_mem_gib_max"))
    exact = float(cells["peak_mem_bytes"] or 0)
    if exact:
        return exact / share, exact / share, exact / share
    if not high:
        raise NotMappedError("no memory figure")
    low = low or high
    note.append("measured is the middle of a bracket")
    return (low + high) / 2 / share, low / share, high / share


def gpu_share(cells: Mapping[str, str], note: list[str]) -> int:
    """Number of GPUs that a total is spread over; 1 for figures of one GPU."""
    scope = cells["mem_scope"].lower()
    if "total" not in scope:
        return 1
    even = re.search(r"zero|fsdp|ddp", cells["parallelism"], re.IGNORECASE)
    if not even or not cells["num_gpus"].isdigit():
        raise NotMappedError("total over GPUs that share the load unevenly or are not counted")
    note.append(f"total divided by {cells['num_gpus']} GPUs")
    return int(cells["num_gpus"])


def refuse_unfit(cells: Mapping[str, str]) -> None:
    """Refuse rows that are no measurement of supervised text training."""
    if cells["kind"] != "measured":
        raise NotMappedError(f"{cells['kind']}, not measured")
    if cells["grade"] == "X":
        raise NotMappedError("grade X")
    words = " ".join(cells[key] for key in ("method", "dataset", "notes", "row_label"))
    if found := NOT_TEXT.search(words):
        raise NotMappedError(f"not supervised text training ({found.group(0).lower()})")
    if not cells["model_id"] or re.search(r"\bclass\b|style|cut to|_lora$", cells["model_id"]):
        raise NotMappedError("no one model named")


def summary(rows: Iterable[Row]) -> str:
    """Counts of rows mapped and not, by source, grade and statistic, and the reasons."""
    rows = list(rows)
    lines = [f"{len(rows)} rows, {sum(row.options is not None for row in rows)} mapped", ""]
    keys: list[tuple[str, Callable[[Row], str]]] = [
        ("source", lambda row: row.source),
        ("grade", lambda row: row.grade),
        ("statistic", lambda row: row.statistic or "none"),
        ("grade and statistic", lambda row: f"{row.grade} {row.statistic or 'none'}"),
    ]
    for title, key in keys:
        total = Counter(key(row) for row in rows)
        mapped = Counter(key(row) for row in rows if row.options is not None)
        lines += [f"by {title:60} mapped   rows"]
        lines += [f"   {name:60} {mapped[name]:6} {total[name]:6}" for name in sorted(total)]
    lines += ["", "not mapped, by reason"]
    lines += [f"   {count:5} {reason}" for reason, count in Counter(r.reason for r in rows if r.reason).most_common()]
    return "\n".join(lines)


def main() -> int:
    """Print the summary of the table given, or of the full table where it lies beside the repository."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FULL_TABLE if FULL_TABLE.exists() else SUBSET
    sys.stdout.write(summary(read_rows(path)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
