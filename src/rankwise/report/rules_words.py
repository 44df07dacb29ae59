"""docs/how-it-decides.md, written from the rules and their evidence: what a rule asks, its numbers, the other side."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

STEPS = {
    "need": "how much there is to learn, and whether anything has to be trained for it",
    "capacity": "whether the trained parameters can hold it",
    "feasibility": "what runs here and can be served: memory, time, money, disk, libraries, engine",
    "cost": "of what does the job, the cheaper",
    "risk": "what tends to go wrong, and what it would cost to be wrong",
    "configuration": "the settings of the run that was chosen",
}
KINDS = {
    "hard": "A candidate that breaks it cannot run, or cannot be used. Forcing a method does not help.",
    "soft": "Another candidate is the better call. A forced method overrides it, and the plan says so as a warning.",
    "choice": "It steers the order of what is left, or says what to try before training.",
    "configuration": "It sets a value of the run. What the job says in `train` or `method` wins.",
    "warning": "It excludes nothing and is said beside the call.",
}
READ = {
    "read": "text or data read",
    "abs": "abstract, or notes of others, read",
    "rec": "recalled, not read again",
    "calc": "computed by this project",
    "run": "measured by this project",
}
NOTE = "<!-- Made from the tables in src/rankwise/decide (*.toml) by `make docs`: change those, not this page. -->"
INTRODUCTION = f"""# How it decides

{NOTE}

A plan looks at the model, the data and the device once, lists the candidates (method, precision, optimizer,
parallelism, batch, checkpointing), prices them, and asks the rules below. The first rule that a candidate breaks is the
one that the plan names, with the number that broke it. A flip point is found by deciding again with one input changed;
none is written by hand. Prompting, retrieval and leaving the base as it is stand below training: they are said first
where they may be enough, and never hide which training would be the right one.

The order is need, capacity, feasibility, cost, risk:
"""


class Limit(Protocol):
    """A number of a rule."""

    @property
    def value(self) -> float: ...
    @property
    def unit(self) -> str: ...
    @property
    def means(self) -> str: ...


class Rule(Protocol):
    """A rule as rules.toml has it."""

    @property
    def title(self) -> str: ...
    @property
    def step(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def inputs(self) -> Sequence[str]: ...
    @property
    def thresholds(self) -> Mapping[str, Limit]: ...
    @property
    def direction(self) -> str: ...
    @property
    def evidence(self) -> Sequence[str]: ...
    @property
    def confidence(self) -> str: ...
    @property
    def other_side(self) -> str: ...


class Source(Protocol):
    """A piece of evidence as evidence.toml has it."""

    @property
    def source(self) -> str: ...
    @property
    def setup(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def confidence(self) -> str: ...
    @property
    def read(self) -> str: ...
    @property
    def other_side(self) -> str: ...


def how_it_decides(rules: Mapping[str, Rule], evidence: Mapping[str, Source]) -> str:
    """The page as Markdown.

    Args:
        rules, evidence: by id, in the order in which they are told.

    Raises:
        KeyError: a rule cites evidence that is not there, or stands in a step that is not explained.
    """
    by_step: dict[str, dict[str, Rule]] = {step: {} for step in STEPS}
    for name, rule in rules.items():
        by_step[rule.step][name] = rule
    lines = [INTRODUCTION, *_steps(by_step), "", "Kinds of rules:", ""]
    lines += [f"- **{kind}**: {meaning}" for kind, meaning in KINDS.items()] + [""]
    for step, own in by_step.items():
        lines += [f"## {step.capitalize()}", ""] if own else []
        for name, rule in own.items():
            lines += _rule(name, rule, evidence)
    lines += ["## Evidence", "", "As published. Confidence is in what the rules take from it.", ""]
    for name, source in evidence.items():
        lines += _evidence(name, source, [rule for rule, text in rules.items() if name in text.evidence])
    return "\n".join(lines).rstrip() + "\n"


def _steps(by_step: Mapping[str, Mapping[str, Rule]]) -> Iterator[str]:
    for number, (step, own) in enumerate(by_step.items(), 1):
        names = ", ".join(f"[{name}](#{name})" for name in own)
        yield f"{number}. **{step}**: {STEPS[step]}" + (f" ({names})" if names else "")


def _rule(name: str, rule: Rule, evidence: Mapping[str, Source]) -> Iterator[str]:
    said = f"**{rule.title}** ({rule.kind}, confidence {rule.confidence}). {_ended(rule.direction)}"
    yield from (f"### {name}", "", said, "")
    yield f"- Looks at: {', '.join(rule.inputs)}"
    for limit, number in rule.thresholds.items():
        yield f"- `{limit}` = {number_text(number.value)} {number.unit}: {number.means}"
    yield f"- The other side: {_ended(rule.other_side)}" if rule.other_side else "- The other side: none known"
    if not rule.evidence:
        yield from ("- Evidence: arithmetic", "")
        return
    ids = ", ".join(f"[{cited}](#{cited.lower()})" for cited in rule.evidence)
    yield from (f"- Evidence: {ids}", "", "<details><summary>Its numbers</summary>", "")
    yield from (f"- {cited}, {evidence[cited].setup}: {evidence[cited].text}" for cited in rule.evidence)
    yield from ("", "</details>", "")


def _evidence(name: str, source: Source, used_by: Sequence[str]) -> Iterator[str]:
    yield from (f"### {name}", "", f"**{source.source}** ({READ[source.read]}; confidence {source.confidence}).", "")
    yield f"- Setup: {source.setup}"
    yield f"- Found: {source.text}"
    if source.other_side:
        yield f"- The other side: {source.other_side}"
    yield "- Used by: " + (", ".join(f"[{rule}](#{rule})" for rule in used_by) or "no rule directly")
    yield ""


def number_text(value: float) -> str:
    """0.05 · 100 · 10,000,000 · 5e-05: as a person would write it, to the last digit."""
    if value == int(value) and abs(value) >= 1:
        return f"{int(value):,}"
    return f"{value:g}"


def _ended(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else text + "."
