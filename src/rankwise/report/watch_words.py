"""Sentences about what a run was seen to forget while it trained."""

from rankwise.records import Forgotten, Slice, Threshold
from rankwise.report.learned_words import Level
from rankwise.report.quantities import bounds, count, difference, duration

LEVELS: dict[str, Level] = {"green": "good", "amber": "warning", "red": "fault", "unknown": "unknown"}


def watched_level(found: Forgotten) -> Level:
    """Of what was published, as the report colours it."""
    return LEVELS[found.level]


def watched_sentence(found: Forgotten) -> str:
    """Each slice beside its limits; slices are never averaged."""
    limits = {t.slice: t for t in found.thresholds}
    said = "; ".join(_slice(part, limits.get(part.name)) for part in found.slices)
    red = f", red at step {count(found.worst_step)}" if found.worst == "red" and found.level != "red" else ""
    looks = f"{count(found.looks)} looks, {duration(found.seconds)}"
    return f"General ability at step {count(found.step)} is {found.level}{red} ({looks}): {said}."


def _slice(part: Slice, limit: Threshold | None) -> str:
    span = bounds(part.interval, part.unit, signed=True)
    red = "" if limit is None or limit.red is None else f", red from {difference(limit.red, part.unit)}"
    return f"{part.name} {part.level}, {difference(part.difference, part.unit)} (95 %: {span}{red})"
