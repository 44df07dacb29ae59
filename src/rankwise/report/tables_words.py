"""Rows and sentences of `rankwise tables`: what the lesson said, what was computed, why they differ."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rankwise.records.tables import Claim, CostRow, Figure, Fit, MemoryRow, Number, Said, Tables
from rankwise.report.glossary import method_name
from rankwise.report.quantities import UNKNOWN, count, duration, duration_range, plain, size, size_range, usd

AnyRow = TypeVar("AnyRow", MemoryRow, CostRow)

VERDICTS = {
    "right": "right",
    "approx": "about right",
    "partly": "partly right",
    "wrong": "wrong",
    "inconsistent": "inconsistent",
    "unsupported": "unsupported",
}
MARKS = {"right": "good", "approx": "good", "partly": "warning", "wrong": "fault", "inconsistent": "fault"}
TOPICS = {
    "memory": "Memory",
    "cost": "Time and money",
    "storage": "Storage",
    "serving": "Serving",
    "counts": "Counts in its code",
    "decision": "Its decision function",
    "history": "History",
    "quality": "What each method can learn",
    "training": "Training settings",
    "code": "Its code",
}
AGAINST = {"lower": "below its range", "overlaps": "overlaps its range", "higher": "above its range"}


@dataclass(frozen=True)
class Cell:
    """One cell of a table of the lesson: what it said, what was computed, and why they differ."""

    name: str
    said: str
    computed: str
    verdict: str
    why: str


def verdict_words(verdict: str) -> str:
    return VERDICTS[verdict]


def verdict_mark(verdict: str) -> str:
    """The level of a mark: good, warning, fault or unknown."""
    return MARKS.get(verdict, "unknown")


def verdict_counts(claims: Sequence[Claim]) -> str:
    """78 claims: 9 right, 14 about right, …"""
    found = Counter(claim.verdict for claim in claims)
    parts = [f"{found[verdict]} {words}" for verdict, words in VERDICTS.items() if found[verdict]]  # type: ignore[index]
    computed = sum(1 for claim in claims if claim.computed is not None)
    return f"{len(claims)} claims: {', '.join(parts)}. {computed} of them are computed here, the others carry evidence."


# -- memory ----------------------------------------------------------------------------------------


def memory_heads(tables: Tables) -> list[str]:
    kinds = [fit.gpu for fit in tables.memory[0].fits]
    return ["size", "recipe", "trained", "state", *kinds, "the lesson said"]


def memory_cells(row: MemoryRow) -> list[str]:
    """In the order of `memory_heads`."""
    said = row.said.text if row.said else ""
    fits = [fit_words(fit) for fit in row.fits]
    return [row.size, recipe(row), parameters(row.trainable_params), size(row.state_bytes), *fits, said]


def recipe(row: MemoryRow) -> str:
    """full: pure bf16 · LoRA."""
    return f"full: {row.recipe}" if row.method == "full" else row.recipe


def method(name: str) -> str:
    return "full" if name == "full" else method_name(name)


def parameters(number: int) -> str:
    """6.74 B · 41.9 M."""
    return f"{plain(number / 1e9)} B" if number >= 1e9 else f"{plain(number / 1e6)} M"


def fit_words(fit: Fit) -> str:
    """4 x 18.7 GB (18.7 to 26.2 GB): GPUs, and the peak of each."""
    if fit.gpus is None:
        return f"not on {fit.tried}"
    if fit.peak_device is None:
        return f"{fit.gpus} for the state alone"
    return f"{fit.gpus} x {size(fit.peak_device)} ({size_range(fit.interval)})"


def memory_verdicts(tables: Tables) -> list[Cell]:
    """The lesson's memory table, cell by cell."""
    return _verdicts(tables.memory, _memory_computed)


def _verdicts(table: Sequence[AnyRow], computed: Callable[[Sequence[AnyRow]], str]) -> list[Cell]:
    """Of a table's rows those of which the lesson said something, one cell for a size and a method."""
    found: dict[tuple[str, str], list[AnyRow]] = {}
    for row in table:
        if row.said is not None:
            found.setdefault((row.size, row.method), []).append(row)
    cells = []
    for (size_name, way), rows in found.items():
        said = rows[0].said
        assert said is not None
        cells.append(Cell(f"{size_name} {method(way)}", said.text, computed(rows), VERDICTS[said.verdict], said.why))
    return cells


def _memory_computed(rows: Sequence[MemoryRow]) -> str:
    """53.9 to 135 GB of state, by recipe; 4 to 8 A100-40GB. Of one recipe: the state, and the GPUs with their peak."""
    traced = [row for row in rows if row.source != rows[0].source] or list(rows)
    states = sorted(row.state_bytes for row in traced)
    fits = [_lessons_fit(row) for row in traced]
    if len(traced) == 1:
        return f"{size(states[0])} of state; {fits[0].gpu}: {fit_words(fits[0])}"
    return f"{size_range((states[0], states[-1]))} of state, by recipe; {_gpu_range(fits)}"


def _lessons_fit(row: MemoryRow) -> Fit:
    """On the GPU that the lesson named; where that was not asked for, on the last one."""
    return next((fit for fit in row.fits if row.said and fit.gpu == row.said.gpu), row.fits[-1])


def _gpu_range(fits: Sequence[Fit]) -> str:
    counts = [fit.gpus for fit in fits]
    known = sorted({number for number in counts if number is not None})
    if not known:
        return f"not on {fits[0].tried} {fits[0].gpu}"
    text = str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"
    return f"{text} {fits[0].gpu}" + (f", or more than {max(fit.tried for fit in fits)}" if None in counts else "")


# -- cost ------------------------------------------------------------------------------------------


def cost_heads(tables: Tables) -> list[str]:
    gpu = tables.cost[0].gpu
    heads = ["size", "method", "tokens", gpu, "time", "GPU-hours"]
    return [*heads, "USD, lesson's price", "USD today", "of LoRA", "the lesson said"]


def cost_cells(row: CostRow) -> list[str]:
    """In the order of `cost_heads`; tokens are those of an example."""
    gpus = count(row.gpus) if row.gpus is not None else "does not fit"
    time = (
        f"{duration(row.train_seconds)} ({duration_range(row.interval)})" if row.train_seconds is not None else UNKNOWN
    )
    hours = UNKNOWN if row.gpu_hours is None else plain(row.gpu_hours)
    said = UNKNOWN if row.said is None else row.said.text
    beside = f"{said}: {AGAINST[row.against_said]}" if row.against_said else said
    return [
        row.size,
        method(row.method),
        count(row.tokens_per_example),
        gpus,
        time,
        hours,
        money(row.usd_at_said_price, row.usd_at_said_price_interval),
        money(row.usd, row.usd_interval),
        UNKNOWN if row.times_lora is None else f"{row.times_lora:.2f} x",
        beside,
    ]


def money(value: float | None, interval: tuple[float, float] | None) -> str:
    """31 USD (15 to 61)."""
    if value is None:
        return UNKNOWN
    span = "" if interval is None else f" ({plain(interval[0])} to {plain(interval[1])})"
    return f"{plain(value)} USD{span}" if value >= 1 else f"{usd(value)}{span}"


def cost_verdicts(tables: Tables) -> list[Cell]:
    """The lesson's cost table, cell by cell."""
    return _verdicts(tables.cost, _cost_computed)


def _cost_computed(rows: Sequence[CostRow]) -> str:
    return "; ".join(
        f"{money(row.usd_at_said_price, row.usd_at_said_price_interval)} at {row.tokens_per_example:,} tokens"
        for row in rows
    )


# -- claims ----------------------------------------------------------------------------------------


def claims_by_topic(claims: Sequence[Claim]) -> dict[str, list[Claim]]:
    """Title of the topic -> its claims, in the order of the lesson's file."""
    found: dict[str, list[Claim]] = {}
    for claim in claims:
        found.setdefault(TOPICS.get(claim.topic, claim.topic.capitalize()), []).append(claim)
    return found


def claim_lines(claim: Claim) -> list[str]:
    """A claim for a terminal: what was said, what was computed, why, source."""
    lines = [f"{claim.id}. {VERDICTS[claim.verdict]}: {claim.said}"]
    lines += [f"     computed: {figure_line(figure)}" for figure in claim.computed or ()]
    return [*lines, f"     why: {claim.why}", f"     source: {claim.source}"]


def figure_line(figure: Figure) -> str:
    """trained, r=16: 41,943,040 parameters (the lesson: 83,886,080 parameters)."""
    said = "" if figure.said is None else f" (the lesson: {_quantity(figure.said, figure.unit)})"
    return f"{figure.name}: {figure_text(figure)}{said}"


def figure_text(figure: Figure) -> str:
    """The value with its unit and its interval."""
    if figure.value is None:
        return UNKNOWN
    text = _quantity(figure.value, figure.unit)
    if figure.interval is None:
        return text
    return f"{text} ({_range(figure.interval, figure.unit)})"


def _quantity(value: Said, unit: str) -> str:
    if isinstance(value, str):
        return f"{value} {unit}" if value.startswith("more than") else value
    if isinstance(value, tuple):
        return _range(value, unit)
    if unit == "B":
        return size(value)
    if unit == "s":
        return duration(value)
    if unit == "USD":
        return f"{plain(value)} USD" if value >= 100 else usd(value)
    if unit == "share":
        return f"{100 * value:.4g} %"
    if unit == "ratio":
        return f"{value:.3g} times"
    if unit == "B/parameter":
        return f"{value:.3g} bytes a parameter"
    return f"{count(value)} {unit.removesuffix('s') if value == 1 else unit}"


def _range(ends: tuple[Number, Number], unit: str) -> str:
    if unit == "B":
        return size_range(ends)
    if unit == "s":
        return duration_range(ends)
    low, high = (_quantity(end, unit) for end in ends)
    last = low.rsplit(" ", 1)
    return f"{last[0]} to {high}" if len(last) == 2 and high.endswith(last[1]) else f"{low} to {high}"


# -- on a terminal ---------------------------------------------------------------------------------


def printed_tables(tables: Tables) -> list[tuple[str, list[str], list[list[str]], list[Cell]]]:
    """(title, heads, rows, the lesson's cells) of each table that was asked for."""
    found = []
    if tables.memory:
        title = "Memory: state of the whole model; GPUs x the peak of each (its interval)"
        rows = _said_once(tables.memory)
        found.append((title, memory_heads(tables), rows, memory_verdicts(tables)))
    if tables.cost:
        title = f"Cost: {tables.assumptions['cost']}"
        found.append((title, cost_heads(tables), [cost_cells(row) for row in tables.cost], cost_verdicts(tables)))
    return found


def cell_line(cell: Cell) -> str:
    """7B full: the lesson said ~98 GB (8x A100 40GB), computed: … Inconsistent: …"""
    return (
        f"{cell.name}: the lesson said {cell.said}; computed: {cell.computed}. {cell.verdict.capitalize()}: {cell.why}"
    )


def _said_once(rows: Sequence[MemoryRow]) -> list[list[str]]:
    """What was said of a method stands beside its first recipe alone."""
    found, last = [], ("", "")
    for row in rows:
        cells = memory_cells(row)
        if (row.size, row.method) == last:
            cells[-1] = ""
        last = (row.size, row.method)
        found.append(cells)
    return found
