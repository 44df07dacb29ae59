"""Records as fragments for a notebook: the page's words, tables and style, without its scripts and pictures."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rankwise.records import Artifact, Bakeoff, Event, Evidence, Outcome, Plan, Trial
from rankwise.report import compare_words
from rankwise.report.page import TEMPLATES, environment
from rankwise.report.rows import plan_view, run_view
from rankwise.report.shown_words import Said, Table, said_of

OWN = "& { padding: 0 1rem 1rem; } .headline { font-size: 1.2rem; font-weight: 650; line-height: 1.3; } "
OWN += "section { margin-top: 0; padding-top: 0; border-top: 0; } section > h2 { display: none; }"


def record_fragment(record: Any) -> str:
    """Any record that has words of its own (`shown_words.KINDS`)."""
    if isinstance(record, Plan):
        return _fragment("notebook_plan.html.j2", plan=record, view=plan_view(record))
    return said_fragment(said_of(record))


def run_fragment(
    plan: Plan,
    events: Sequence[Event],
    evidence: Evidence | None,
    artifact: Artifact | None,
    state: str,
    folder: Path | str,
) -> str:
    """A run in any state, from what its folder holds."""
    run = run_view(plan, events, evidence, artifact, state, folder)
    passages = [("Findings", [finding.text for finding in run.findings])]
    said = Said([run.headline, *(line.text for line in run.lines)], (), passages)
    return said_fragment(said, run.figures, f"All of it: `rankwise report {run.where}`")


def comparison_fragment(bakeoff: Bakeoff, trials: Sequence[Trial], outcome: Outcome | None, folder: Path | str) -> str:
    """A comparison, planned or concluded."""
    return said_fragment(comparison_said(bakeoff, trials, outcome), (), f"All of it: `rankwise report {folder}`")


def comparison_said(bakeoff: Bakeoff, trials: Sequence[Trial], outcome: Outcome | None) -> Said:
    """What it found; before that, what it will spend."""
    say = compare_words
    if outcome is None:
        lead = [say.planned_line(bakeoff), say.stands_line(bakeoff, trials)]
        return Said(lead, [Table("Arms", *say.planned_table(bakeoff))], [("Notes", bakeoff.notes)])
    scores, costs = say.scores_table(bakeoff, trials, outcome), say.costs_table(bakeoff, trials, outcome)
    contrasts = say.contrasts_table(bakeoff, trials, outcome)
    tables = [Table("Scores", *scores), Table("Costs", *costs), Table("Contrasts", *contrasts)]
    return Said([*say.verdict_lines(outcome), say.spent_line(bakeoff, outcome)], tables, [("Notes", outcome.notes)])


def said_fragment(said: Said, figures: Sequence[Any] = (), more: str = "") -> str:
    """Sentences, tables and lists.

    Args:
        figures: numbers that stand out, each with name, value and source.
        more: a last line.
    """
    return _fragment("notebook.html.j2", said=said, figures=figures, more=more)


def _fragment(template: str, **context: Any) -> str:
    html = environment().get_template(template).render(css=Markup(style()), **context)  # noqa: S704 our own file
    return _without_ids(html)


@cache
def style() -> str:
    """The page's style, for what stands inside of a fragment alone: nested, its root and body the fragment itself."""
    css = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    css = css.replace(":root, :root.on-paper {", "& {").replace(":root:not(.on-paper) {", "& {")
    css = re.sub(r"^body \{", "& {", css, flags=re.MULTILINE).replace("body { background: none; font-size: 1rem; }", "")
    css = re.sub(r"\bhtml \{[^}]*\}|@page \{[^}]*\}", "", css)
    return f".rankwise {{ {css.strip()} {OWN} }}"


def _without_ids(html: str) -> str:
    """An id may stand once in a document; no text of a record holds a quotation mark that was not escaped."""
    html = re.sub(r' (?:id|aria-labelledby|aria-describedby)="[^"]*"', "", html)
    return re.sub(r'<a href="#[^"]*">(.*?)</a>', r"\1", html)
