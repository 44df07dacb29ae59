"""The priced options side by side: their order, their roles, and the columns of the terminal's table."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rankwise.records import Estimate, Interval, Plan
from rankwise.report.quantities import UNKNOWN, common_scale, share, size_scale
from rankwise.report.verdict_words import stored_bytes

Role = Literal["chosen", "runner-up", "possible", "rejected"]
ROLES: tuple[Role, ...] = ("chosen", "runner-up", "possible", "rejected")
NAME = 16  # characters of an option's name on a narrow terminal
ROWS = 16  # of the terminal's table: a screen; the page has them all


@dataclass(frozen=True)
class CandidateRow:
    """An option with its part in the call and, where it was excluded, the rule and the number that did it."""

    estimate: Estimate
    role: Role
    rule: str | None
    number: str | None


@dataclass(frozen=True)
class Column:
    """A column of text.

    Attributes:
        rank: 1 is the last to be left out where room is short.
        right: flush right, as numbers are.
        short: the cells without their intervals, or names on several lines; None where there is nothing to shorten.
        short_rank: when they are taken instead, on the scale of `rank`.
    """

    head: str
    cells: tuple[str, ...]
    rank: int
    right: bool = True
    short: tuple[str, ...] | None = None
    short_rank: int = 0


@dataclass(frozen=True)
class PriceTable:
    """Columns of equal length, the row of the verdict, and a sentence about rows that were left out."""

    columns: tuple[Column, ...]
    chosen: int | None
    left_out: str

    def narrower(self) -> Iterator[tuple[Column, ...]]:
        """The columns, then ever narrower choices of them: each leaves out one interval or one column more."""
        steps = [(c.rank, c.head, True) for c in self.columns if c.rank > 2]
        steps += [(c.short_rank, c.head, False) for c in self.columns if c.short]
        kept = {c.head: c for c in self.columns}
        yield tuple(kept.values())
        for _, head, whole in sorted(steps, reverse=True):
            if whole:
                del kept[head]
            elif head in kept:
                kept[head] = replace(kept[head], cells=kept[head].short or ())
            yield tuple(kept.values())

    def missing(self, shown: Sequence[Column]) -> str:
        """The columns and intervals that are not among `shown`; empty where all are."""
        heads = {c.head: c for c in shown}
        told = [_one_line(c.head) for c in self.columns if c.head not in heads]
        cut = [c for c in self.columns if c.right and c.head in heads and heads[c.head].cells != c.cells]
        told += [f"intervals of {_one_line(c.head)}" for c in cut]
        return f"Left out for room: {'; '.join(told)}. The page and plan.json have them." if told else ""


def _one_line(head: str) -> str:
    return ", ".join(head.split("\n"))


def candidate_rows(plan: Plan) -> tuple[CandidateRow, ...]:
    """Every priced option: the verdict, the runner-up, the possible ones by price, the rejected ones by price."""
    rows = [_row(plan, e) for e in plan.candidates]
    return tuple(sorted(rows, key=lambda r: (ROLES.index(r.role), *_dearness(r.estimate))))


def _row(plan: Plan, estimate: Estimate) -> CandidateRow:
    broken = next((r for r in plan.rejected if r.method == (estimate.id or estimate.method)), None)
    rule, number = (broken.rule, broken.number) if broken else (None, None)
    if estimate.id is not None and estimate.id == plan.verdict.candidate:
        return CandidateRow(estimate, "chosen", None, None)
    if estimate.id is not None and estimate.id == plan.runner_up:
        return CandidateRow(estimate, "runner-up", rule, number)
    return CandidateRow(estimate, "rejected" if rule else "possible", rule, number)


def _dearness(estimate: Estimate) -> tuple[bool, bool, float, int]:
    """What fits first; then by money, or by time where nothing has a price; what is unknown last."""
    price = estimate.time.train_seconds if estimate.money.train_usd is None else estimate.money.train_usd
    return estimate.memory.fits is not True, price is None, price or 0.0, estimate.memory.peak_device


def price_table(plan: Plan) -> PriceTable:
    """The table of `rankwise plan`; numbers of a column share one unit, which its head names."""
    rows = candidate_rows(plan)
    shown = rows[:ROWS]
    estimates = [row.estimate for row in shown]
    role = Column("call", tuple(_call(row) for row in shown), 2, right=False)
    names = tuple(e.id or e.method for e in estimates)
    columns = (
        Column("option", names, 1, right=False, short=tuple(map(_on_lines, names)), short_rank=10),
        role,
        _memory_column(estimates),
        _time_column(estimates),
        _number_column("one run\nUSD", [e.money.train_usd for e in estimates], 4),
        _quality_column(plan, estimates),
        _number_column("project\nUSD", [e.money.project_usd for e in estimates], 11),
        _size_column("stored", [stored_bytes(e) for e in estimates], 12),
        _size_column(_served(plan), [e.serving.all_variants_bytes for e in estimates], 13),
    )
    chosen = 0 if shown and shown[0].role == "chosen" else None
    return PriceTable(tuple(c for c in columns if _says_something(c)), chosen, _left_out(rows[ROWS:]))


def _on_lines(name: str) -> str:
    """A long name broken behind its hyphens, at most NAME characters a line where they allow it."""
    lines = [""]
    for part in re.findall(r"[^-]+-?|-", name):
        lines = [*lines, part] if lines[-1] and len(lines[-1] + part) > NAME else [*lines[:-1], lines[-1] + part]
    return "\n".join(lines)


def _says_something(column: Column) -> bool:
    return not column.right or any(cell != UNKNOWN for cell in column.cells)


def _left_out(rows: Sequence[CandidateRow]) -> str:
    if not rows:
        return ""
    rules = ", ".join(dict.fromkeys(row.rule for row in rows if row.rule))
    counted = "1 more option is" if len(rows) == 1 else f"{len(rows)} more options are"
    return f"{counted} on the page and in plan.json" + (f", excluded by {rules}." if rules else ".")


def _call(row: CandidateRow) -> str:
    return row.rule or row.role if row.role == "rejected" else row.role


def _served(plan: Plan) -> str:
    variants = plan.job.variants
    return "served" if variants == 1 else f"{variants} served"


def _memory_column(estimates: Sequence[Estimate]) -> Column:
    capacities = {e.memory.capacity for e in estimates}
    common = capacities.pop() if len(capacities) == 1 else None
    name, factor = size_scale(common or max((e.memory.peak_device for e in estimates), default=0))
    of = f" of {_digits(common / factor)}" if common else ""
    marks = {True: "fits", False: "over", None: "fits?"}
    cells = tuple(f"{_digits(e.memory.peak_device / factor)} {marks[e.memory.fits]:<4}" for e in estimates)
    return Column(f"memory\n{name}{of}", cells, 3)


def _time_column(estimates: Sequence[Estimate]) -> Column:
    name, factor = common_scale([e.time.train_seconds or 0.0 for e in estimates], "s")
    spans = [(e.time.train_seconds, e.time.interval) for e in estimates]
    return _span_column(f"one run\n{name}", spans, lambda s: _digits(s / factor), rank=5, short_rank=9)


def _quality_column(plan: Plan, estimates: Sequence[Estimate]) -> Column:
    priors = [plan.priors.get(e.id or e.method) for e in estimates]

    def percent(value: float) -> str:
        return share(value).removesuffix(" %")

    spans = [(p.value, p.interval) if p else (None, None) for p in priors]
    return _span_column("quality\n% of full", spans, percent, rank=6, short_rank=8)


def _span_column(
    head: str,
    spans: Sequence[tuple[float | None, Interval | None]],
    write: Callable[[float], str],
    *,
    rank: int,
    short_rank: int,
) -> Column:
    cells = tuple(_spanned(value, interval, write) for value, interval in spans)
    short = tuple(_spanned(value, None, write) for value, _ in spans)
    return Column(head, cells, rank, short=short, short_rank=short_rank)


def _spanned(value: float | None, interval: Interval | None, write: Callable[[float], str]) -> str:
    if value is None:
        return UNKNOWN
    return write(value) + (f" ({write(interval[0])}-{write(interval[1])})" if interval else "")


def _number_column(head: str, values: Sequence[float | None], rank: int) -> Column:
    return Column(head, tuple(UNKNOWN if v is None else _digits(v) for v in values), rank)


def _size_column(head: str, values: Sequence[int], rank: int) -> Column:
    name, factor = size_scale(max(values, default=0))
    return Column(f"{head}\n{name}", tuple(_digits(v / factor) for v in values), rank)


def _digits(value: float) -> str:
    """1,234 · 56.2 · 4.70 · 0.047: three digits, no exponent."""
    if abs(value) >= 99.95 or value == 0:
        return f"{value:,.0f}"
    if abs(value) >= 0.995:
        return f"{value:.1f}" if abs(value) >= 9.95 else f"{value:.2f}"
    return f"{value:.2g}" if abs(value) >= 1e-4 else f"{value:.0e}"
