"""Tables at the end of docs/how-it-decides.md: what does not work together, and the quality that is expected."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from rankwise.report.rules_words import number_text


class Refused(Protocol):
    """A line of compatibility.toml."""

    @property
    def methods(self) -> Sequence[str]: ...
    @property
    def feature(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def source(self) -> str: ...


class Expected(Protocol):
    """A line of priors.toml."""

    @property
    def recipes(self) -> Sequence[str]: ...
    @property
    def regime(self) -> str | None: ...
    @property
    def rank_from(self) -> int: ...
    @property
    def headroom_from(self) -> float: ...
    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def evidence(self) -> str: ...


def decision_tables(refused: Iterable[Refused], expected: Iterable[Expected]) -> str:
    """Markdown."""
    lines = ["## What does not work together", "", "Rule `works_together`, and what engines serve.", ""]
    lines += _table(("Methods", "Feature", "Why", "Source"), _refusals(refused))
    lines += ["", "## Expected quality", "", "Share of what full fine-tuning without limits would gain, from published"]
    lines += ["head-to-heads: a prior for the Pareto plot. It chooses nothing. The first line that matches holds.", ""]
    lines += _table(("Candidates", "Where", "Share", "Interval", "From"), _priors(expected))
    return "\n".join(lines) + "\n"


def _refusals(refused: Iterable[Refused]) -> Iterator[tuple[str, ...]]:
    for one in refused:
        yield ", ".join(one.methods), one.feature, one.why, one.source


def _priors(expected: Iterable[Expected]) -> Iterator[tuple[str, ...]]:
    for one in expected:
        where = [{"code_math": "code and math"}.get(one.regime, one.regime)] if one.regime else []
        where += [f"rank from {one.rank_from}"] if one.rank_from else []
        where += [f"holds {number_text(one.headroom_from)} times the need"] if one.headroom_from else []
        share = f"{one.low:.2f} to {one.high:.2f}"
        yield ", ".join(one.recipes), ", ".join(where) or "anywhere", f"{one.value:.2f}", share, one.evidence


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in cells]
