"""What the templates show, computed: the choices of the page that are not about looks."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise.records import (
    Actual,
    Answer,
    Artifact,
    Comparison,
    Estimate,
    Evaluation,
    Event,
    Evidence,
    Failed,
    Finding,
    Finished,
    Note,
    Plan,
    Rehearsed,
    Started,
    Step,
    Stopped,
    Validation,
)
from rankwise.report import words
from rankwise.report.bill_words import bill
from rankwise.report.charts import (
    MemoryBar,
    Track,
    capacity_mark,
    memory_bar,
    ratio_track,
    score_tracks,
    thin,
    widest_ratio,
)
from rankwise.report.plan_words import Citation, RejectedGroup
from rankwise.report.price_sources import Sources, price_sources
from rankwise.report.price_table import CandidateRow, candidate_rows
from rankwise.report.watch_words import watched_level, watched_sentence

SEVERITY = ("fault", "warning", "good")  # findings of a level stay in their order
FIRST_ANSWERS = 6
FIRST_MARKED = 2
MOST_ANSWERS = 50  # of each kind: with LONGEST of page.py it keeps any page under 5 MB


@dataclass(frozen=True)
class Line:
    """A sentence with a level, which the page shows as a mark with a word."""

    level: words.Level
    text: str


@dataclass(frozen=True)
class Figure:
    """One key figure and where it comes from."""

    name: str
    value: str
    source: str


@dataclass(frozen=True)
class PlanView:
    headline: str
    paragraph: tuple[str, ...]
    warnings: tuple[str, ...]
    rejected: tuple[RejectedGroup, ...]
    evidence: tuple[Citation, ...]
    chosen: Estimate | None
    candidates: tuple[CandidateRow, ...]
    sources: tuple[tuple[str, Sources], ...]
    bill: tuple[tuple[str, str], ...]
    memory: MemoryBar | None
    capacity_at: float | None
    config: dict[str, str]


@dataclass(frozen=True)
class AnswerGroup:
    """Answers of one kind: the first few in file order, the rest folded, what is beyond counted."""

    kind: str
    judged: tuple[str, str]
    first: tuple[Answer, ...]
    rest: tuple[Answer, ...]
    left_out: int


@dataclass(frozen=True)
class ScoreRow:
    comparison: Comparison
    answer: str
    base: Track
    tuned: Track


@dataclass(frozen=True)
class ActualRow:
    actual: Actual
    judgement: str
    track: Track | None


@dataclass(frozen=True)
class RunView:
    state: str
    folder: str
    where: str
    headline: str
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]
    figures: tuple[Figure, ...]
    answers: tuple[AnswerGroup, ...]
    scores: tuple[ScoreRow, ...]
    actuals: tuple[ActualRow, ...]
    widest: float
    started: Started | None
    notes: tuple[str, ...]
    sampled: tuple[tuple[Step | None, Validation | None, int], ...]


def plan_view(plan: Plan) -> PlanView:
    chosen, verdict = plan.chosen(), plan.verdict
    config = verdict.config.model_dump(mode="json") if verdict.config else {}
    costs = verdict.config.costs(plan.job, plan.facts) if verdict.config else None
    headline, price = words.verdict_headline(plan)
    drawn = chosen if chosen and chosen.memory.capacity is not None else None
    return PlanView(
        headline=headline,
        paragraph=(*([price] if price else []), *words.verdict_paragraph(plan)[1:]),
        warnings=words.warnings_left(plan),
        rejected=words.rejected_groups(plan.rejected),
        evidence=words.all_evidence(plan),
        chosen=chosen,
        candidates=candidate_rows(plan),
        sources=price_sources(plan),
        memory=memory_bar(drawn) if drawn else None,
        capacity_at=capacity_mark(drawn) if drawn else None,
        bill=tuple(bill(chosen, costs)) if chosen and costs else (),
        config={key: _config_text(value) for key, value in config.items() if value is not None},
    )


def _config_text(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def run_view(
    plan: Plan,
    events: Sequence[Event],
    evidence: Evidence | None,
    artifact: Artifact | None,
    state: str,
    folder: Path | str,
    findings: Sequence[Finding] = (),
) -> RunView:
    """`findings`: so far, of a run without evidence."""
    evaluation = evidence.evaluation if evidence else None
    actuals = evidence.actuals if evidence else ()
    widest = widest_ratio(actuals)
    stands = words.state_sentence(state, *_progress(plan, events, evidence), folder)
    found = tuple(sorted(evidence.findings if evidence else findings, key=lambda f: SEVERITY.index(f.level)))
    lines = _lines(plan, events, evidence, artifact, state, folder, found)
    return RunView(
        state=state,
        folder=str(folder),
        where=shlex.quote(str(folder)),
        headline=words.knows_or_sounds(evaluation) if evaluation else stands,
        lines=(*lines, Line("unknown", stands)) if evaluation else lines,
        findings=found,
        figures=_figures(plan, events, evidence, artifact),
        answers=_answer_groups(evaluation) if evaluation else (),
        scores=tuple(_score_row(c) for c in evaluation.comparisons) if evaluation else (),
        actuals=tuple(ActualRow(a, words.judgement(a), ratio_track(a, widest)) for a in actuals),
        widest=widest,
        started=next((e for e in reversed(events) if isinstance(e, Started)), None),
        notes=tuple(words.event_line(e, 0) for e in events if isinstance(e, Note | Rehearsed)),
        sampled=_sampled(events),
    )


def _progress(plan: Plan, events: Sequence[Event], evidence: Evidence | None) -> tuple[int | None, int | None]:
    if evidence:
        return evidence.steps, evidence.max_steps
    most = plan.verdict.config.max_steps if plan.verdict.config else None
    started = next((e for e in reversed(events) if isinstance(e, Started)), None)
    last = max((e.step for e in events if isinstance(e, Step | Started)), default=None)
    return last, started.max_steps if started else most


def _lines(
    plan: Plan,
    events: Sequence[Event],
    evidence: Evidence | None,
    artifact: Artifact | None,
    state: str,
    folder: Path | str,
    findings: Sequence[Finding],
) -> tuple[Line, ...]:
    """What a reader must know at once, below the headline."""
    lines = list(_endings(events, state))
    budget = plan.job.forgetting.budget_nats
    if evidence is None:
        if state not in ("planned", "running"):
            lines.append(Line("unknown", "This run wrote no evidence.json: what it learned is unknown."))
    elif evidence.evaluation is None:
        lines.append(Line("unknown", words.outcome_lines(evidence, None, folder=folder)[0]))
    else:
        lines += _learned_lines(evidence.evaluation, budget)
    lines += [Line("unknown", words.knows_or_sounds(other)) for other in (evidence.against if evidence else ())]
    if evidence is not None and evidence.forgetting is not None:
        lines.append(Line(watched_level(evidence.forgetting), watched_sentence(evidence.forgetting)))
    proof = artifact.verification if artifact else None
    if proof or (evidence and state == "finished"):
        passed: words.Level = "unknown" if proof is None else "good" if proof.passed else "fault"
        lines.append(Line(passed, words.proof_sentence(proof, folder)))
    return (*lines, *(Line(f.level, words.sentence(f.text, None)) for f in findings if f.level != "good"))


def _learned_lines(evaluation: Evaluation, budget: float) -> list[Line]:
    """Facts kept and lost, sure and wrong, and what was forgotten."""
    lines = []
    if kept := words.kept_sentence(evaluation):
        knew = any(a.kind == "fact" and a.base_ok for a in evaluation.answers)
        lines.append(Line("warning" if words.lost_facts(evaluation) else "good" if knew else "unknown", kept))
    if sure := words.confident_sentence(evaluation):
        lines.append(Line("warning" if words.confident_and_wrong(evaluation) else "good", sure))
    return [*lines, Line(words.forgetting_level(evaluation, budget), words.forgetting_sentence(evaluation, budget))]


def _endings(events: Sequence[Event], state: str) -> list[Line]:
    failed = next((e for e in reversed(events) if isinstance(e, Failed)), None)
    stopped = next((e for e in reversed(events) if isinstance(e, Stopped)), None)
    if state == "failed" and failed:
        parts = (failed.what, failed.expected and f"expected: {failed.expected}", failed.fix and f"fix: {failed.fix}")
        return [Line("fault", part) for part in parts if part]
    if state == "stopped" and stopped:
        return [Line("warning", f"Reason: {stopped.reason}")]
    return []


def _training_time(predicted: float | None, steps: Sequence[Step], evidence: Evidence | None) -> Figure:
    """The whole run beside its prediction, which is of the whole run; of one that has not ended, its steps so far."""
    whole = next((a.actual for a in evidence.actuals if a.quantity == "train_seconds"), None) if evidence else None
    if whole is not None:
        return Figure("Training time", words.duration(whole), f"whole run; predicted {words.duration(predicted)}")
    seconds = sum(e.seconds for e in steps) if steps else None
    return Figure("Training time", words.duration(seconds), "steps alone, by the clock")


def _figures(
    plan: Plan, events: Sequence[Event], evidence: Evidence | None, artifact: Artifact | None
) -> tuple[Figure, ...]:
    chosen = plan.chosen()
    finished = next((e for e in reversed(events) if isinstance(e, Finished)), None)
    steps = [e for e in events if isinstance(e, Step)]
    peak = finished.peak_memory_bytes if finished else None
    memory = words.size(chosen.memory.peak_device) if chosen else words.UNKNOWN
    trained = f"of {words.count(chosen.total_params)}, counted from its shapes" if chosen else "no method"
    tokens = evidence.tokens if evidence else sum(e.tokens for e in steps) if steps else None
    return (
        _training_time(chosen.time.train_seconds if chosen else None, steps, evidence),
        Figure("Peak memory", words.size(peak), f"of the process, from events.jsonl; predicted {memory}"),
        Figure("Trained parameters", words.count(chosen.trainable_params if chosen else None), trained),
        Figure("Tokens trained on", words.count(tokens), "counted in the steps, no padding"),
        Figure("Validation loss", *_validation_figure(events)),
        Figure("Method", words.method_name(artifact.method if artifact else plan.verdict.method), _result(artifact)),
    )


def _validation_figure(events: Sequence[Event]) -> tuple[str, str]:
    losses = [e for e in events if isinstance(e, Validation)]
    if not losses:
        return words.UNKNOWN, "no validation was run"
    first = f"base {words.nats(losses[0].loss)}" if losses[0].step == 0 else "base unknown"
    return words.nats(losses[-1].loss), f"per token at step {words.count(losses[-1].step)}; {first}"


def _result(artifact: Artifact | None) -> str:
    return f"result: {artifact.kind}, {len(artifact.files):,} files" if artifact else "no artifact yet"


def _answer_groups(evaluation: Evaluation) -> tuple[AnswerGroup, ...]:
    """What hurts first: facts that were lost, answers that are sure and wrong; then each kind in file order."""
    marked = (
        ("lost", words.lost_facts(evaluation)),
        ("sure", words.confident_and_wrong(evaluation)),
    )
    groups = [_answer_group(kind, found, evaluation, FIRST_MARKED) for kind, found in marked if found]
    kinds = [k for k in ("format", "fact", "paraphrase", "reversed") if any(a.kind == k for a in evaluation.answers)]
    for kind in kinds:
        own = [a for a in evaluation.answers if a.kind == kind]
        groups.append(_answer_group(kind, own, evaluation, max(1, FIRST_ANSWERS // len(kinds))))
    return tuple(groups)


def _answer_group(kind: str, own: Sequence[Answer], evaluation: Evaluation, shown: int) -> AnswerGroup:
    first, rest = tuple(own[:shown]), tuple(own[shown:MOST_ANSWERS])
    return AnswerGroup(kind, _judged(kind, evaluation), first, rest, len(own[MOST_ANSWERS:]))


def _judged(kind: str, evaluation: Evaluation) -> tuple[str, str]:
    """What a tick and a cross mean: without a `format` in the job, an answer is held against the row's own."""
    if kind != "format":
        return "right", "wrong"
    formed = words.comparison_of(evaluation, "format") is not None
    return ("right form", "wrong form") if formed else ("as expected", "not as expected")


def _score_row(comparison: Comparison) -> ScoreRow:
    return ScoreRow(comparison, words.answer_of(comparison), *score_tracks(comparison))


def _sampled(events: Sequence[Event]) -> tuple[tuple[Step | None, Validation | None, int], ...]:
    """The curves as a table of at most 40 rows: every validation if they fit, and steps between."""
    steps = {e.step: e for e in events if isinstance(e, Step)}
    checks = {e.step: e for e in events if isinstance(e, Validation)}
    wanted = sorted({*thin(sorted(checks), 20), *thin(sorted(steps), 20)})
    return tuple((steps.get(n), checks.get(n), n) for n in wanted)
