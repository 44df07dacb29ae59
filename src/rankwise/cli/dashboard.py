"""A run on a terminal: what `LiveRun` knows -> what rich draws. Nothing here asks the clock, a file or a process."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from statistics import median
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, Group, OverflowMethod, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rankwise.cli.pictures import chart, sparkline
from rankwise.records import Finding, Slice, SpectrumSeen, Step, Validation, Watched
from rankwise.report import words
from rankwise.watch.live import LiveRun, time_left
from rankwise.watch.resources import peak_memory, planned_speed

TWO_COLUMNS = 120  # characters, from which on forgetting and findings stand beside the curves
ROOMY = 30  # lines, from which on the loss is drawn large
LARGE = 6  # lines of that drawing
NEWEST = 6  # findings and lines
LABEL = 15
SHORTEST = 6  # curve or bar
STYLES = {"good": "green", "green": "green", "warning": "yellow", "amber": "yellow", "fault": "red", "red": "red"}
SHOWN = ("note", "validation", "watched", "acted", "spectrum", "saved", "rehearsed", "stopped", "failed", "finished")


class Row(NamedTuple):
    """One quantity: its curve and its number in words."""

    name: str
    values: Sequence[float]
    text: str
    style: str = ""


class Dashboard:
    """Drawn anew for each width: two columns, one, or without curves.

    Args:
        title: of the run.
        now: the clock, against the time of the last event; None: that of the last event.
    """

    def __init__(self, run: LiveRun, title: str, now: datetime | None = None):
        self.run, self.title, self.now = run, title, now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, plain = options.max_width, options.ascii_only
        wide = width >= TWO_COLUMNS
        half = (width - 3) // 2 if wide else width
        curves = _grid(curve_rows(self.run), half, plain)
        ability = _grid([*forgetting_rows(self.run), *spectrum_rows(self.run)], half, plain)
        newest = Group(*_newest(self.run))
        yield _head(self.run, self.title, plain)
        yield _progress(self.run, self.now, width)
        yield Text("")
        if options.size.height >= ROOMY:
            yield from _large_loss(self.run, width, plain)
        if not wide:
            yield Group(curves, ability, Text(""), newest)
            return
        beside = Table.grid(padding=(0, 3, 0, 0))
        beside.add_column(width=half)
        beside.add_column(width=half)
        beside.add_row(curves, Group(ability, Text(""), newest))
        yield beside


def _overflow(plain: bool) -> OverflowMethod:
    """An ellipsis is no sign of ASCII."""
    return "crop" if plain else "ellipsis"


def _head(run: LiveRun, title: str, plain: bool) -> Text:
    config = run.plan.verdict.config if run.plan else None
    method = words.method_name(config.method) if config else "a run"
    rank = f", r {config.r}" if config and config.r else ""
    return Text(f"{title}: {method}{rank}", style="bold", no_wrap=True, overflow=_overflow(plain))


def _progress(run: LiveRun, now: datetime | None, width: int) -> RenderableType:
    """A bar, steps, and the time that is left with its interval."""
    last, total = run.last(Step), run.max_steps
    done = last.step if last else 0
    said = Text(f"step {words.count(done)} of {words.count(total)}")
    if last:
        said.append(f", epoch {last.epoch:.2f}")
    if left := _left_text(run, now):
        said.append(f"   {left}")
    room = min(40, width - said.cell_len - 2)
    if room < SHORTEST:
        return said
    line = Table.grid(padding=(0, 2, 0, 0))
    line.add_row(ProgressBar(total=total or 1, completed=done, width=room), said)
    return line


def _left_text(run: LiveRun, now: datetime | None) -> str:
    if run.ended:
        return run.events[-1].event
    left = time_left(run, now)
    return words.left_sentence(left.seconds, left.interval, left.source) if left else ""


def _large_loss(run: LiveRun, width: int, plain: bool) -> Iterator[Text]:
    losses = [s.loss for s in run.all(Step)]
    if len(losses) > 1:
        for line in chart(losses, width - LABEL, LARGE, ascii_only=plain):
            yield Text(" " * LABEL + line, style="cyan", no_wrap=True, overflow="crop")


def curve_rows(run: LiveRun) -> list[Row]:
    """Loss, held-out loss, names and numbers, rate, gradients, speed, memory: those of which something is known."""
    steps, checks = run.all(Step), run.all(Validation)
    rows = []
    if steps:
        losses = [s.loss for s in steps]
        rows.append(Row("loss", losses, f"{losses[-1]:.4f} nats, first {losses[0]:.4f}"))
    if checks:
        rows.append(_validation_row(checks))
    if known := [v for v in checks if v.fact_accuracy is not None]:
        shares = [v.fact_accuracy or 0.0 for v in known]
        said = f"{words.share(shares[-1])} right, the rest {words.share(known[-1].other_accuracy)}"
        rows.append(Row("names, numbers", shares, said))
    if steps:
        rates, norms = [s.learning_rate for s in steps], [s.grad_norm for s in steps]
        rows.append(Row("learning rate", rates, f"{rates[-1]:.2e}"))
        rows.append(Row("gradient norm", norms, f"{norms[-1]:.2f}, median {median(norms):.2f}"))
        rows.append(_speed_row(run, steps))
    if memory := _memory_row(run):
        rows.append(memory)
    return rows


def _validation_row(checks: Sequence[Validation]) -> Row:
    losses = [v.loss for v in checks]
    best = min(checks, key=lambda v: v.loss)
    which = "the base is best" if best.step == 0 else f"best at step {words.count(best.step)}"
    moved = f"{losses[0]:.3f} -> {losses[-1]:.3f}" if len(losses) > 1 else f"{losses[0]:.3f}"
    return Row("validation", losses, f"{moved} nats" + (f", {which}" if len(losses) > 1 else ", the base"))


def _speed_row(run: LiveRun, steps: Sequence[Step]) -> Row:
    speeds = [s.tokens / s.seconds for s in steps if s.seconds > 0]
    recent = steps[-20:]
    seconds = sum(s.seconds for s in recent)
    said = words.rate(sum(s.tokens for s in recent) / seconds if seconds else None)
    if planned := planned_speed(run.plan):
        low, high = planned[1]
        said += f", plan {words.plain(planned[0])} ({words.plain(low)} to {words.plain(high)})"
    return Row("speed", speeds, said)


def _memory_row(run: LiveRun) -> Row | None:
    """Resident memory of the process as it was sampled; of a GPU the highest peak that the run has told of."""
    estimate = run.plan.chosen() if run.plan else None
    device = run.plan.facts.device.kind if run.plan else "cpu"
    peak = peak_memory(tuple(run.events))
    samples = [float(s) for s in run.memory] if device == "cpu" else [] if peak is None else [float(peak)]
    if not samples:
        return None
    said = words.size(samples[-1])
    if estimate is not None:
        span = words.size_range(estimate.memory.interval)
        said += f", plan {words.size(estimate.memory.peak_device)} ({span})"
    over = estimate is not None and samples[-1] > estimate.memory.interval[1]
    return Row("memory", samples, said, STYLES["warning"] if over else "")


def forgetting_rows(run: LiveRun) -> list[Row]:
    """Each slice of general ability by itself, and KL(base || tuned)."""
    seen = run.all(Watched)
    if not seen:
        return []
    rows = [_slice_row(part, seen) for part in seen[-1].slices]
    if (kl := [w.kl for w in seen if w.kl is not None]) and seen[-1].kl is not None:
        rows.append(Row("KL from base", kl, f"{words.nats(kl[-1])} per token on the task's prompts"))
    return rows


def _slice_row(part: Slice, seen: Sequence[Watched]) -> Row:
    same = [s.difference for w in seen for s in w.slices if (s.name, s.metric) == (part.name, part.metric)]
    span = words.bounds(part.interval, part.unit, signed=True)
    said = f"{part.level}: {words.difference(part.difference, part.unit)} ({span})"
    return Row(part.name, same, said, STYLES.get(part.level, ""))


def spectrum_rows(run: LiveRun) -> list[Row]:
    """The median effective rank of all matrices over time, and how large the update is beside the weights."""
    seen = run.all(SpectrumSeen)
    ranks = [median(found) for s in seen if (found := [m.effective_rank for m in s.modules if m.effective_rank])]
    if not ranks:
        return []
    last = seen[-1].modules
    most = max(m.rank for m in last)
    rows = [Row("effective rank", ranks, f"{ranks[-1]:.1f} of {most}, median of {words.count(len(last))} matrices")]
    ratios = [median(found) for s in seen if (found := [m.norm_ratio for m in s.modules if m.norm_ratio is not None])]
    if ratios:
        intruders = sum(m.intruders or 0 for m in last)
        said = f"{words.share(ratios[-1])} of the weights' norm, {words.count(intruders)} intruders"
        rows.append(Row("update", ratios, said))
    return rows


def _grid(rows: Sequence[Row], width: int, plain: bool) -> Table:
    """Name, curve, number; the curve gets what the others leave, and is left out where that is little."""
    texts = max((len(row.text) for row in rows), default=0)
    room = min(40, width - LABEL - texts - 2)
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=LABEL - 1, no_wrap=True, overflow=_overflow(plain), style="dim")
    if room >= SHORTEST:
        grid.add_column(width=room, no_wrap=True, style="cyan")
    grid.add_column(no_wrap=True, overflow=_overflow(plain))
    for row in rows:
        curve = [Text(sparkline(row.values, room, ascii_only=plain))] if room >= SHORTEST else []
        grid.add_row(Text(row.name), *curve, Text(row.text, style=row.style))
    return grid


def _newest(run: LiveRun) -> Iterator[Text]:
    """Findings first, the newest of each first; then what was said last."""
    for finding in reversed(run.findings[-NEWEST:]):
        yield _finding(finding)
    said = [e for e in tuple(run.events) if e.event in SHOWN]
    for event in reversed(said[-NEWEST:]):
        yield Text(words.event_line(event, run.max_steps or 0), style="dim", overflow="fold")


def _finding(finding: Finding) -> Text:
    return Text(words.finding_line(finding), style=STYLES[finding.level], overflow="fold")
