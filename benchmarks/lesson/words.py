"""result.json -> docs/lesson-tested.md: what came of the lesson's claims, in plain words."""

from collections.abc import Mapping
from typing import Any

from benchmarks.lesson.readme import with_interval

WORDS = {
    "confirmed": "It holds here.",
    "refuted": "It does not hold here.",
    "cannot tell": "These seeds cannot tell.",
    "not run": "It has not been run.",
}
# What a reader should do, by outcome; said before the run, so that no outcome is explained away after it.
FOLLOWS = {
    "X1": {
        "confirmed": "For a format take a low rank; raise it only where the held-out loss asks for it.",
        "refuted": "Do not take a low rank for granted even for a format: sweep it.",
    },
    "X2": {
        "confirmed": "Count the bits of your facts against the adapter's parameters. A few hundred fit a small "
        "adapter, thousands do not.",
        "refuted": "Rank was not what bounded the facts here; look at rate and steps before the rank.",
    },
    "X3": {
        "confirmed": "An adapter is the safer choice where general ability must stay, at equal loss on the task.",
        "refuted": "A frozen base protects nothing while the adapter is on. Measure forgetting for every method, lower "
        "the rate first, and compare where both have learned the same.",
    },
    "X4": {
        "confirmed": "Mix in what the base wrote itself; no corpus is needed for it.",
        "refuted": "Replay of this kind is no cure here; lower the rate.",
    },
    "X5": {
        "confirmed": "Merge where one model is served; the files can be merged without fear, and undone in fp32.",
        "refuted": "Prove each merge on held-out rows (`rankwise verify`) before it is served.",
    },
    "X6": {
        "confirmed": "Pick one convention for alpha, keep it, and sweep the rate; a new rank needs no new sweep.",
        "refuted": "Sweep the rate again whenever the rank changes.",
    },
    "X7": {
        "confirmed": "Compare at equal FLOPs, but tune the rate of each method first: that matters more.",
        "refuted": "The price of a step or the weight of the rate is not what was foreseen; read the numbers.",
    },
    "X8": {
        "confirmed": "Judge a rank by cutting it and measuring the task (`rankwise watch RUN --truncate`), not by its "
        "spectrum.",
        "refuted": "The spectrum and the task agreed more than foreseen, or the format needed many directions; read "
        "the numbers.",
    },
}


def in_words(result: Mapping[str, Any]) -> str:
    """The page."""
    experiments, metrics = result["experiments"], result["metrics"]
    lines = [
        "# The lesson, tested",
        "",
        "<!-- Made by `make bench-lesson` from benchmarks/lesson/result.json. -->",
        "",
        "Teams choose between full fine-tuning and PEFT by a handful of sentences that every lesson repeats. Eight of "
        "them were put to the test on small models, each with a prediction written down first and a rule that could "
        "refute it.",
        "",
        f"{_counted(metrics, result['sizes']['seeds'])} Every number, with its rule and raw rows: "
        "[benchmarks/lesson](../benchmarks/lesson/README.md).",
        "",
        *_wrong(experiments),
        "All of it is small: a model of 135M parameters, one format, a few hundred rows, and for facts a model of "
        "0.34M. An outcome says what happens at this scale. Where it contradicts a paper on billions of "
        "parameters, both can be right; it does show that the sentence is no law.",
        "",
    ]
    for name, found in experiments.items():
        lines += _section(name, found)
    return "\n".join(lines)


def _counted(metrics: Mapping[str, Any], seeds: int) -> str:
    """How many of the claims came out in which way; no word of those that have not been run where all have."""
    hold, refuted, missing = metrics["confirmed"], metrics["refuted"], metrics["not_run"]
    told = [
        f"{hold} hold{'s' if hold == 1 else ''} here",
        f"{refuted} do{'es' if refuted == 1 else ''} not",
        f"{metrics['cannot_tell']} cannot be told from {seeds} seeds",
        *([f"{missing} ha{'s' if missing == 1 else 've'} not been run"] if missing else []),
    ]
    return f"Of the eight claims {', '.join(told[:-1])}, and {told[-1]}."


def _wrong(experiments: Mapping[str, Any]) -> list[str]:
    """Where the lesson, the literature or the prediction was wrong at this scale."""
    refuted = [found["claim"] for found in experiments.values() if found["outcome"] == "refuted"]
    surprises = [
        f"- {name}, {found['title'].lower()}: {found['expected']} was foreseen, and it came out as {found['outcome']}."
        for name, found in experiments.items()
        if found["outcome"] not in (found["expected"], "not run")
    ]
    beside = [
        f"- {name}: {test['says']}: {with_interval(test)}, where {' and '.join(test['confirmed_if'])} was foreseen."
        for name, found in experiments.items()
        for test in found["tests"].values()
        if test["outcome"] == "refuted" and not test["headline"]
    ]
    lines = []
    if refuted:
        lines += ["Sentences that did not hold:", "", *(f"- {claim}" for claim in refuted), ""]
    if surprises:
        lines += ["Where the prediction itself was not met:", "", *surprises, ""]
    if beside:
        lines += ["Numbers beside the claims that came out otherwise than foreseen:", "", *beside, ""]
    return lines


def _section(name: str, found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"## {name}: {found['title']}",
        "",
        f"**Claim.** {found['claim']} **{WORDS[found['outcome']]}**",
        "",
        f"- The lesson says: {found['lesson']}",
        f"- The literature: {found['literature']}",
        f"- Predicted before the run: {found['predicted']}",
    ]
    lines += [f"- {_measured(test)}" for test in found["tests"].values()]
    follows = FOLLOWS[name].get(found["outcome"])
    return [*lines, "", *([follows, ""] if follows else [])]


def _measured(test: Mapping[str, Any]) -> str:
    said = test["says"][0].upper() + test["says"][1:]
    return f"{said}: {with_interval(test)}; {test['outcome']}."
