"""Sentences about what a model learned and forgot: does it know, or does it only sound so?"""

from typing import Literal

from rankwise.records import Comparison, Evaluation
from rankwise.report.quantities import bounds, difference, measured, plain, signed_nats

Level = Literal["good", "warning", "fault", "unknown"]
Learned = Literal["yes", "less", "no", "cannot tell", "not measured"]
# Measures of how it talks, the best one first.
TALK = ("format", "exact_match", "heldout_loss")
# A change whose whole interval lies inside this margin is called none; one that merely covers 0 `cannot tell`.
NO_CHANGE = 0.15


def comparison_of(evaluation: Evaluation, metric: str) -> Comparison | None:
    return next((c for c in evaluation.comparisons if c.metric == metric), None)


def answer_of(comparison: Comparison) -> Literal["better", "worse", "cannot tell"]:
    """The record's answer; `cannot tell` whenever the interval of the difference covers 0."""
    low, high = comparison.difference_interval
    return "cannot tell" if low <= 0 <= high else comparison.answer


def knows_or_sounds(evaluation: Evaluation) -> str:
    """The headline: did it learn how to talk, and did it learn what is true?"""
    if evaluation.against is not None:
        return _against(evaluation)
    talk = next((c for c in (comparison_of(evaluation, n) for n in TALK) if c), None)
    facts = comparison_of(evaluation, "facts")
    match (_learned(talk), _learned(facts)):
        case ("not measured", "not measured"):
            return "Neither how it talks nor what it knows was measured: the job gives no `format` and no `data.facts`."
        case ("yes", "yes"):
            return f"It learned how to talk ({_gain(talk)}) and what is true ({_change(facts)})."
        case ("yes", "no"):
            return f"It learned how to talk ({_gain(talk)}) and not what is true ({_short(facts)})."
        case ("no", "no"):
            return f"It learned neither how to talk ({_change(talk)}) nor what is true ({_short(facts)})."
        case (talked, knows):
            return f"{_talk_clause(talk, talked)}; {_facts_clause(facts, knows)}."


def _learned(comparison: Comparison | None) -> Learned:
    """yes, less than before, no (the interval covers 0 and holds no gain worth the name), or cannot tell."""
    if comparison is None:
        return "not measured"
    answer = answer_of(comparison)
    if answer != "cannot tell":
        return "yes" if answer == "better" else "less"
    low, high = comparison.difference_interval
    small = comparison.unit == "share" and low >= -NO_CHANGE and high <= NO_CHANGE
    return "no" if small else "cannot tell"


def _talk_clause(talk: Comparison | None, learned: Learned) -> str:
    return {
        "yes": f"It learned how to talk ({_gain(talk)})",
        "less": f"It talks worse than before ({_change(talk)})",
        "no": f"It did not learn how to talk ({_change(talk)})",
        "cannot tell": f"Whether it learned how to talk, we cannot tell ({_change(talk)})",
        "not measured": "How it talks was not measured",
    }[learned]


def _facts_clause(facts: Comparison | None, learned: Learned) -> str:
    return {
        "yes": f"it learned what is true ({_change(facts)})",
        "less": f"it lost what is true: it knows less than before ({_change(facts)})",
        "no": f"it did not learn what is true ({_short(facts)})",
        "cannot tell": f"whether it learned what is true, we cannot tell ({_change(facts)})",
        "not measured": "what it knows was not measured (the job gives no `data.facts`)",
    }[learned]


def _gain(c: Comparison | None) -> str:
    """+97 points format: 2 % -> 99 %."""
    if c is None:
        return ""
    name = {"exact_match": "exact answers", "heldout_loss": "held-out loss"}.get(c.metric, c.metric)
    return f"{difference(c.difference, c.unit)} {name}: {measured(c.base, c.unit)} -> {measured(c.tuned, c.unit)}"


def _change(c: Comparison | None) -> str:
    """+40 points facts: 25 % -> 65 %, interval +28 to +52."""
    return "" if c is None else f"{_gain(c)}, {_interval(c)}"


def _short(c: Comparison | None) -> str:
    """+3 points facts, interval -3 to +9 covers 0."""
    return "" if c is None else f"{_gain(c).partition(':')[0]}, {_interval(c)}"


def _interval(c: Comparison) -> str:
    covers = " covers 0" if answer_of(c) == "cannot tell" else ""
    return f"interval {bounds(c.difference_interval, c.unit, signed=True)}{covers}"


def _against(evaluation: Evaluation) -> str:
    """The headline of two runs: what of this one is better, worse, or cannot be told apart."""
    named = [c for c in (comparison_of(evaluation, n) for n in (*TALK[:2], "facts", *TALK[2:])) if c]
    said = [f"{answer_of(c)} in {_change(c)}" for c in named]
    return f"Against {evaluation.against} it is {'; '.join(said)}."


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
