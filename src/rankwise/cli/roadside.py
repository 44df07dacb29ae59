"""`rankwise` alone: the road, where this folder stands on it, and the next step."""

from rich.console import Console
from rich.markup import escape

from rankwise.cli.printing import print_lines, print_passage

ROAD = "Job -> plan -> train -> eval -> merge -> verify -> export / serve"
COLOURS = {"done": "green", "next": "bold yellow", "ahead": "dim", "left out": "dim"}
MARKS = {"done": "done", "next": "next", "ahead": "", "left out": "no need"}


def show_road() -> int:
    """Print it; always exit code 0."""
    from rankwise import api

    found = api.road()
    lines = Console(highlight=False, soft_wrap=True)
    lines.print(f"[bold]{escape(ROAD)}[/]\n")
    for stop in found.stops:
        line = f"  {MARKS[stop.state]:<8}{stop.name:<8}{stop.found}".rstrip()
        lines.print(f"[{COLOURS[stop.state]}]{escape(line)}[/]")
    lines.print(f"\nNext: [bold]{escape(found.next.command)}[/]\n      {escape(found.next.why)}")
    for step in found.others:
        lines.print(f"Also: {escape(step.command)}\n      [dim]{escape(step.why)}[/]")
    print_lines("")
    print_passage("Damaged", found.damaged)
    print_lines("`rankwise --help` lists every command, `rankwise --install-completion` sets up the Tab key.")
    return 0
