"""Sentences about what a model learned and forgot: does it know, or does it only sound so?"""

from typing import Literal

from rankwise.records import Comparison, Evaluation
from rankwise.report.quantities import bounds, difference, measured, plain, signed_nats

Level = Literal["good", "warning", "fault", "unknown"]
# A gain in facts that lies inside this margin is called none; one that merely covers 0 is called `cannot tell`.
NO_CHANGE = 0.10


def comparison_of(evaluation: Evaluation, metric: str) -> Comparison | None:
    return next((c for c in evaluation.comparisons if c.metric == metric), None)


def answer_of(comparison: Comparison) -> Literal["better", "worse", "cannot tell"]:
    """The record's answer; `cannot tell` whenever the interval of the difference covers 0."""
    low, high = comparison.difference_interval
    return "cannot tell" if low <= 0 <= high else comparison.answer


def knows_or_sounds(evaluation: Evaluation) -> str:
    """The headline: did it learn how to talk, and did it learn what is true?"""
    names = ("format", "exact_match", "heldout_loss")
    talk = next((c for c in (comparison_of(evaluation, n) for n in names) if c), None)
    facts = comparison_of(evaluation, "facts")
    if talk is None and facts is None:
        return "Neither how it talks nor what it knows was measured: the job gives no `format` and no `data.facts`."
    talked = talk is not None and answer_of(talk) == "better"
    if talked and facts is not None and answer_of(facts) == "better":
        return f"{_talk_clause(talk)} and what is true ({_change(facts, True)})."
    if talked and facts is not None and _no_change(facts):
        return f"{_talk_clause(talk)} and not what is true ({_change(facts, False)}: cannot tell from none)."
    return f"{_talk_clause(talk)}; {_facts_clause(facts)}."


def _talk_clause(talk: Comparison | None) -> str:
    if talk is None:
        return "How it talks was not measured"
    answer = answer_of(talk)
    if answer == "better":
        return f"It learned how to talk ({_change(talk, True, interval=False)})"
    if answer == "worse":
        return f"It talks worse than before ({_change(talk, True)})"
    return f"Whether it learned how to talk, we cannot tell ({_change(talk, True)})"


def _facts_clause(facts: Comparison | None) -> str:
    if facts is None:
        return "what it knows was not measured (the job gives no `data.facts`)"
    answer = answer_of(facts)
    if answer == "better":
        return f"it learned what is true ({_change(facts, True)})"
    if answer == "worse":
        return f"it knows less than before ({_change(facts, True)})"
    if _no_change(facts):
        return f"it did not learn what is true ({_change(facts, False)}: cannot tell from none)"
    return f"whether it learned what is true, we cannot tell ({_change(facts, True)})"


def _no_change(comparison: Comparison) -> bool:
    low, high = comparison.difference_interval
    return answer_of(comparison) == "cannot tell" and low >= -NO_CHANGE and high <= NO_CHANGE


def _change(c: Comparison, both: bool, interval: bool = True) -> str:
    """+97 points of format: 2 % -> 99 %, interval +90 to +100."""
    of = {"exact_match": "exact answers", "heldout_loss": "held-out loss"}.get(c.metric, c.metric)
    ends = f": {measured(c.base, c.unit)} -> {measured(c.tuned, c.unit)}" if both else ""
    span = f", interval {bounds(c.difference_interval, c.unit, signed=True)}" if interval else ""
    return f"{difference(c.difference, c.unit)} of {of}{ends}{span}"


def forgetting_level(evaluation: Evaluation, budget_nats: float | None) -> Level:
    """good: the whole interval is within the budget; fault: all of it is beyond; warning: it covers the budget."""
    general = comparison_of(evaluation, "general_loss")
    if general is None or budget_nats is None:
        return "unknown"
    low, high = general.difference_interval
    if high <= budget_nats:
        return "good"
    return "fault" if low > budget_nats else "warning"


def forgetting_sentence(evaluation: Evaluation, budget_nats: float | None) -> str:
    """What happened to general ability, against the budget."""
    general = comparison_of(evaluation, "general_loss")
    if general is None:
        return "Forgetting was not measured: the job gives no general rows (`data.general`)."
    span = bounds(general.difference_interval, general.unit, signed=True)
    change = f"general loss changed by {signed_nats(general.difference)} per token (95 %: {span})"
    if budget_nats is None:
        return f"Forgetting: {change}; no budget was set."
    budget = f"budget {plain(budget_nats)} nats"
    opening = {
        "good": "Forgetting is within the budget",
        "warning": "Forgetting: cannot tell whether it is within the budget",
        "fault": "Forgetting is beyond the budget",
    }[forgetting_level(evaluation, budget_nats)]
    return f"{opening}: {change}, {budget}."
