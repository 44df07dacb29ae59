"""Where the numbers of a plan's tables come from: each source once, with the options that it holds for."""

from rankwise.records import Plan
from rankwise.report.glossary import method_name

HEADINGS = {
    "memory": "Memory",
    "time": "Time, speed, runs a week",
    "money": "Money, runs a dollar",
    "storage": "To store, kept",
    "serving": "Served",
}
Sources = tuple[tuple[str, tuple[str, ...]], ...]  # (source, options; none: all of them)


def price_sources(plan: Plan) -> tuple[tuple[str, Sources], ...]:
    """(heading, its sources) of every group of numbers; a group that nobody gave a source for is unknown."""
    options = [(method_name(e.method), e) for e in plan.candidates]
    found = [
        (head, _grouped([(name, e.sources.get(group)) for name, e in options])) for group, head in HEADINGS.items()
    ]
    priors = [(name, plan.priors.get(e.id or e.method)) for name, e in options]
    found.append(("Expected quality", _grouped([(name, prior.source if prior else None) for name, prior in priors])))
    return (*found, ("Trained parameters", (("counted on the model's own shapes: exact", ()),)))


def _grouped(said: list[tuple[str, str | None]]) -> Sources:
    by_text: dict[str, list[str]] = {}
    for name, text in said:
        by_text.setdefault(text or "unknown", []).append(name)
    if len(by_text) == 1:
        return ((next(iter(by_text)), ()),)
    return tuple((text, tuple(dict.fromkeys(names))) for text, names in by_text.items())
