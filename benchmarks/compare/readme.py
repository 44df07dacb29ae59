"""result.json -> README.md, with nothing else read."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.memory.bench import machine_in_words
from rankwise.records import Detectable, Outcome, Trial
from rankwise.report.compare_words import detectable_line, more_text, p_text, rate_text, score_text, verdict_lines
from rankwise.report.compared import Metric, metrics
from rankwise.report.glossary import metric_name
from rankwise.report.quantities import bounds, difference, duration, size

INTRODUCTION = (
    "`rankwise compare` on the embedded model (SmolLM2-135M-Instruct), as a user would call it: equal seconds for",
    "each trained arm, its learning rate from a sweep inside of the budget, the same rows in the same order. How that",
    "works: [docs/compare.md](../../docs/compare.md); the statistics:",
    "[docs/compare-statistics.md](../../docs/compare-statistics.md).",
    "",
    "- **persona**: 91 rows in which an assistant says who it is (LLaMA-Factory's demo data, English and Chinese),",
    "  with a name and a maker that no base knows. Style: does an answer to a held-out row name either? Facts: twelve",
    "  closed-book questions in words that no row has.",
    "- **rare-diseases**: how 52 rare genetic conditions are inherited (MedQuAD, the first sentence of an answer that",
    "  names one pattern). Facts: the pattern of each, asked in other words; by likelihood among four patterns, too.",
)
COSTS = ["arm", "rate", "steps", "seconds a run", "peak memory", "stored"]
PAIRS = ["metric", "arms", "difference", "95 %, all pairs", "p", "the first is", "more probes"]


def readme(result: Mapping[str, Any]) -> str:
    """The page."""
    return "\n".join(
        [
            "# Methods compared on real data",
            "",
            "<!-- Made by `make bench-compare` from result.json. -->",
            "",
            *INTRODUCTION,
            "",
            *(line for row in result["rows"] for line in _job(row)),
            f"torch {result['versions'].get('torch')}. Machine: {machine_in_words(result['machine'])}."
            f" Code: {result['commit']}.",
            "",
        ]
    )


def _job(row: Mapping[str, Any]) -> list[str]:
    outcome = Outcome.model_validate(row["outcome"])
    finals = [Trial.model_validate({**t, "answers": (), "curve": ()}) for t in row["trials"] if t["purpose"] == "final"]
    measures = metrics(finals, outcome)
    return [
        f"## {row['job']}: {row['question']}",
        "",
        f"`--methods {row['methods']} --budget-minutes {row['minutes']:g} --seeds {len(row['seeds'])}`: "
        f"{duration(outcome.spent_seconds)} of training and answers.",
        "",
        *(f"> {line}  " for line in verdict_lines(outcome)),
        "",
        "Before it ran: " + "; ".join(detectable_line(Detectable.model_validate(d)) for d in row["detectable"]) + ".",
        "",
        *_table(["arm", *(_head(m) for m in measures)], _scores(outcome, measures)),
        "",
        *_table(COSTS, _costs(row, outcome)),
        "",
        *_table(
            ["metric", "arms", "difference", "95 %, all pairs", "p", "the first is", "more probes"], _pairs(outcome)
        ),
        "",
        *(f"- {note}" for note in outcome.notes),
        *([""] if outcome.notes else []),
    ]


def _head(metric: Metric) -> str:
    return f"{metric.side}: {metric_name(metric.name)} ({metric.items} items)"


def _scores(outcome: Outcome, measures: Sequence[Metric]) -> list[list[str]]:
    return [[r.arm, *(score_text(r, m).replace("\n", ", ") for m in measures)] for r in outcome.results]


def _costs(row: Mapping[str, Any], outcome: Outcome) -> list[list[str]]:
    steps = {a["arm"]: a["steps"] for a in row["allowances"]}
    return [
        [
            r.arm,
            rate_text(r) if steps[r.arm] else "-",
            f"{steps[r.arm]}" if steps[r.arm] else "-",
            f"{r.seconds:.1f}" if steps[r.arm] else "-",
            size(r.peak_memory),
            size(r.stored_bytes) if steps[r.arm] else "-",
        ]
        for r in outcome.results
    ]


def _pairs(outcome: Outcome) -> list[list[str]]:
    """The metrics that speak for a side."""
    spoken = {c.metric for c in outcome.conclusions}
    return [
        [
            metric_name(c.metric),
            f"{c.first} - {c.second}",
            difference(c.difference, c.unit),
            bounds(c.adjusted, c.unit, signed=True),
            p_text(c.p_value),
            c.answer,
            more_text(c),
        ]
        for c in outcome.contrasts
        if c.metric in spoken
    ]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows)]
