"""Sentences about a run: how training went, what was predicted, what is proven, and the command that comes next."""

import shlex
from pathlib import Path

from rankwise.records import Actual, Check, Evidence, Finding, Interval, Verification
from rankwise.report.evaluation_words import confident_sentence, kept_sentence
from rankwise.report.glossary import quantity_name
from rankwise.report.learned_words import forgetting_sentence, knows_or_sounds
from rankwise.report.plan_words import sentence
from rankwise.report.quantities import bounds, common_scale, count, duration, duration_range, nats, plain, share
from rankwise.report.watch_words import watched_sentence

MARKS = {"good": "ok", "warning": "warning", "fault": "FAULT"}


def outcome_lines(
    evidence: Evidence,
    verification: Verification | None,
    *,
    budget_nats: float | None = None,
    folder: Path | str = "RUN",
) -> list[str]:
    """What it kept and forgot, how training went, and whether the files are proven; the headline of an evaluation
    (`knows_or_sounds`) stands above.
    """
    where = shlex.quote(str(folder))
    if evidence.evaluation is None:
        lines = [f"What it learned is not measured yet: `rankwise eval {where}` does it."]
    else:
        evaluation = evidence.evaluation
        said = (kept_sentence(evaluation), confident_sentence(evaluation))
        lines = [s for s in said if s] + [forgetting_sentence(evaluation, budget_nats)]
    lines += [knows_or_sounds(other) for other in evidence.against]
    if evidence.forgetting is not None:
        lines.append(watched_sentence(evidence.forgetting))
    lines.append(training_sentence(evidence))
    lines.append(validation_sentence(evidence))
    lines.append(proof_sentence(verification, folder))
    return lines


def training_sentence(evidence: Evidence) -> str:
    """Steps, tokens, time and the loss from first to last step."""
    done = f"{count(evidence.steps)} of {count(evidence.max_steps)} steps"
    how_long = "" if evidence.train_seconds is None else f" in {duration(evidence.train_seconds)}"
    return (
        f"Trained {done} on {count(evidence.tokens)} tokens{how_long}: "
        f"loss {_nats_pair(evidence.first_loss, evidence.final_loss)}.{_waste(evidence)}"
    )


def _waste(evidence: Evidence) -> str:
    """What of the work was no training."""
    if evidence.padding_share is None or evidence.overhead_share is None:
        return ""
    padding, overhead = share(evidence.padding_share), share(evidence.overhead_share)
    return f" Padding was {padding} of the tokens computed, work outside the model {overhead} of the steps' time."


def validation_sentence(evidence: Evidence) -> str:
    """Held-out loss of the base, the best and the last step."""
    base, best, final = evidence.base_validation_loss, evidence.best_validation_loss, evidence.final_validation_loss
    if base is None and best is None and final is None:
        return "Validation loss was not measured."
    at = "" if evidence.best_validation_step is None else f" at step {count(evidence.best_validation_step)}"
    return f"Validation loss {_nats_pair(base, final)}; best {nats(best)}{at}."


def _nats_pair(first: float | None, last: float | None) -> str:
    return f"{nats(first)} -> {nats(last)}".replace(" nats -> ", " -> ")


def proof_sentence(verification: Verification | None, folder: Path | str = "RUN") -> str:
    """Passed or not, and by how many checks."""
    if verification is None:
        return f"Not proven yet: `rankwise verify {shlex.quote(str(folder))}` checks the saved files."
    total = len(verification.checks)
    failed = [c.name for c in verification.checks if not c.passed]
    took = duration(verification.seconds)
    if verification.passed and not failed:
        return f"Proven: {total} of {total} checks of the saved files passed, in {took}."
    named = f": {', '.join(failed)}" if failed else ""
    return f"NOT proven: {len(failed)} of {total} checks of the saved files failed{named}."


def finding_line(finding: Finding) -> str:
    """warning: the loss still falls (0.02 nats per step). Train longer. [docs/findings.md#learned]"""
    advice = f" {finding.advice}" if finding.advice else ""
    link = f" [{finding.link}]" if finding.link else ""
    return f"{MARKS[finding.level]}: {sentence(finding.text, finding.number)}{advice}{link}"


def check_line(check: Check) -> str:
    """ok: reload. Logits of ... (largest difference 0, at most 1e-4)."""
    limit = f" (limit {check.limit})" if check.limit else ""
    number = f" {check.number}{limit}." if check.number else ""
    return f"{'ok' if check.passed else 'FAILED'}: {check.name}. {sentence(check.text, None)}{number}"


def actual_line(actual: Actual) -> str:
    """Training time: predicted 130 s (65 to 260), took 118 s: inside the interval."""
    verb = "took" if actual.unit in ("s", "seconds") else "was"
    judged = judgement(actual)
    return (
        f"{quantity_name(actual.quantity)}: predicted {predicted_text(actual)}, {verb} {actual_text(actual)}: {judged}"
    )


def predicted_text(actual: Actual) -> str:
    """130 s (65 to 260)."""
    if actual.predicted is None:
        return "unknown"
    return f"{_in_scale(actual, actual.predicted)}{_span(actual, actual.interval)}"


def actual_text(actual: Actual) -> str:
    """118 s, in the unit of the prediction."""
    return _in_scale(actual, actual.actual)


def judgement(actual: Actual) -> str:
    """Inside or outside the interval, said plainly."""
    if actual.actual is None:
        return "not measured"
    if actual.predicted is None:
        return "nothing was predicted"
    off = _deviation(actual.actual, actual.predicted)
    if actual.interval is None:
        return f"{off}, no interval was given"
    low, high = actual.interval
    if low <= actual.actual <= high:
        return "inside the interval"
    return f"OUTSIDE the interval, {off}"


def _deviation(actual: float, predicted: float) -> str:
    """6 % above the prediction · 2.3 times the prediction."""
    if actual == predicted:
        return "as predicted"
    if predicted <= 0:
        return "0 was predicted"
    ratio = actual / predicted
    if not 0.67 < ratio < 1.5:
        return f"{plain(ratio)} times the prediction"
    return f"{share(abs(ratio - 1))} {'above' if ratio > 1 else 'below'} the prediction"


def _scale(actual: Actual) -> tuple[str, float]:
    values = [v for v in (actual.predicted, actual.actual, *(actual.interval or ())) if v is not None]
    return common_scale(values, actual.unit)


def _in_scale(actual: Actual, value: float | None) -> str:
    unit, factor = _scale(actual)
    if value is None:
        return "unknown"
    return share(value) if unit == "share" else f"{plain(value / factor)} {unit}"


def _span(actual: Actual, interval: Interval | None) -> str:
    if interval is None:
        return ""
    unit, factor = _scale(actual)
    if unit == "share":
        return f" ({bounds(interval, unit)})"
    return f" ({plain(interval[0] / factor)} to {plain(interval[1] / factor)})"


def state_sentence(state: str, step: int | None, max_steps: int | None, folder: Path | str) -> str:
    """Where the run stands, and the command that comes next."""
    at = f"step {count(step)} of {count(max_steps)}"
    where = shlex.quote(str(folder))
    resume = f"Continue: `rankwise train {where} --resume`"
    sentences = {
        "planned": f"Planned, not started. Start: `rankwise train {_plan_path(folder)} --out {where}`",
        "running": f"Running: {at}. Look again: `rankwise show {where}`",
        "finished": f"Finished: {at}. Talk to it: `rankwise chat {where}`",
        "stopped": f"Stopped at {at}. {resume}",
        "failed": f"Failed at {at}. When the cause is mended: `rankwise train {where} --resume`",
        "killed": f"Killed at {at}: the process ended without a word. {resume}",
    }
    return sentences.get(state, f"State {state!r}: {at}. Look at it: `rankwise show {where}`")


def left_sentence(seconds: float, interval: Interval, source: str) -> str:
    """2 min 5 s left (1 to 4 min, measured)."""
    return f"{duration(seconds)} left ({duration_range(interval)}, {source})"


def _plan_path(folder: Path | str) -> str:
    return shlex.quote(str(Path(folder) / "plan.json"))
