"""What all findings share: how one is told, where it is explained, and the events that it is read from."""

from collections.abc import Callable, Sequence
from typing import Literal

from rankwise.records import Event, Finding, Plan, Step, Validation

PAGE = "docs/findings.md"
# Of a run made by others there is no plan: what a finding would hold against it is unknown, and the finding silent.
Rule = Callable[[Plan | None, Sequence[Event]], Finding | None]


def raised(
    name: str, level: Literal["good", "warning", "fault"], text: str, number: str | None, advice: str | None
) -> Finding:
    """A finding with the link to its own section of the page."""
    return Finding(name=name, level=level, text=text, number=number, advice=advice, link=link_of(name))


def link_of(name: str) -> str:
    """docs/findings.md#gradient-spikes"""
    return f"{PAGE}#{name.replace('_', '-')}"


def steps_of(events: Sequence[Event]) -> list[Step]:
    return [e for e in events if isinstance(e, Step)]


def validations_of(events: Sequence[Event]) -> list[Validation]:
    return [e for e in events if isinstance(e, Validation)]
