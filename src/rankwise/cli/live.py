"""The events of a run on a terminal as they come: a picture that is drawn anew, or plain lines."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from rankwise.cli.dashboard import Dashboard
from rankwise.cli.printing import notes
from rankwise.records import Event, Plan, Step
from rankwise.report import words
from rankwise.watch.live import LiveRun

A_SECOND = 2  # pictures: the run needs the cores more


def show_live(title: str, plan: Plan | None, events: Iterable[Event], memory: Callable[[], int | None]) -> None:
    """On a terminal the picture, elsewhere lines.

    Args:
        memory: resident bytes of the training process now; asked each time a picture is drawn.
    """
    if notes.is_terminal and not notes.is_dumb_terminal:
        _draw(title, LiveRun(plan), events, memory)
    else:
        _print(LiveRun(plan), events)


def _draw(title: str, run: LiveRun, events: Iterable[Event], memory: Callable[[], int | None]) -> None:
    """On the terminal's second screen, which leaves the first one as it was; the last picture stays on the first.

    A console of its own: that of the notes does not wrap, and a picture has to.
    """
    console = Console(stderr=True, highlight=False)

    def picture() -> Dashboard:
        now = memory()
        if now is not None:
            run.memory.append(now)
        return Dashboard(run, title, datetime.now(UTC))

    try:
        with Live(
            get_renderable=picture,
            console=console,
            screen=True,
            refresh_per_second=A_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            for event in events:
                run.see(event)
    finally:
        if run.events:
            console.print(Dashboard(run, title))


def _print(run: LiveRun, events: Iterable[Event]) -> None:
    """Every event as a line, of long runs about twenty steps, and each finding when it is first raised."""
    for event in events:
        found = run.see(event)
        total = run.max_steps or 0
        if not isinstance(event, Step) or event.step % _every(run) == 0 or event.step in (1, total):
            notes.print(escape(words.event_line(event, total)))
        for finding in found:
            notes.print(escape(words.finding_line(finding)))


def _every(run: LiveRun) -> int:
    config = run.plan.verdict.config if run.plan else None
    return max(config.logging_steps if config else 1, (run.max_steps or 0) // 20, 1)
