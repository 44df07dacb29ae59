"""What a comparison found, in plain English. Nothing is said that no contrast shows."""

from collections.abc import Mapping, Sequence

from rankwise.compare.stats import FEWEST_ITEMS, HARDLY_ANY
from rankwise.records import ArmResult, Bakeoff, Conclusion, Contrast, Scores
from rankwise.records.past import gap_words

# What is asked of a model on each side, in the plural.
ITEMS = {"style": "held-out rows", "facts": "probes", "task": "held-out rows", "forgetting": "general items"}
BEYOND = 1.1  # steps of one trained arm over those of another, from where on it is said


def listed(names: Sequence[str], last: str = "and") -> str:
    """a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def level(value: float, unit: str) -> str:
    return f"{100 * value:.0f} %" if unit == "share" else f"{value:.3g} {unit}"


def gap(contrast: Contrast) -> str:
    """+12 points [+3 to +21], of the first over the second."""
    return gap_words(contrast.difference, contrast.adjusted, contrast.unit)


def beaten_by(contrasts: Sequence[Contrast]) -> dict[str, list[str]]:
    """Arm -> the arms that are shown to be better than it."""
    beaten: dict[str, list[str]] = {}
    for contrast in contrasts:
        if contrast.answer != "cannot tell":
            pair = (contrast.first, contrast.second)
            winner, loser = pair if contrast.answer == "better" else pair[::-1]
            beaten.setdefault(loser, []).append(winner)
    return beaten


def missing(contrast: Contrast) -> str:
    """What it would take to tell two arms apart."""
    if contrast.items < FEWEST_ITEMS:
        return f"needs at least {FEWEST_ITEMS} {ITEMS[contrast.side]}, and there are {contrast.items}"
    if contrast.more_items is not None:
        return f"needs about {contrast.more_items:,} more {ITEMS[contrast.side]}"
    if abs(contrast.difference) <= HARDLY_ANY * (contrast.adjusted[1] - contrast.adjusted[0]) / 2:
        return "hardly any difference was seen"
    return f"needs more seeds than {contrast.seeds}: no number of {ITEMS[contrast.side]} would tell it"


def conclusion_text(
    about: Scores, means: Mapping[str, float], contrasts: Sequence[Contrast], best: Sequence[str]
) -> str:
    """Who is shown to be better on one metric, and what is open among those that nobody beats."""
    reached = ", ".join(f"{arm} {level(value, about.unit)}" for arm, value in means.items())
    said = f"{about.metric} ({reached}): "
    if not contrasts:
        return f"{said}there is no other arm to compare with."
    beaten = beaten_by(contrasts)
    losers = [arm for arm in means if beaten.get(arm)]
    if not losers:
        return f"{said}cannot tell any of them apart ({_largest(contrasts, best)})."
    if len(best) == 1 and all(best[0] in beaten[arm] for arm in losers):
        return f"{said}{best[0]} is shown to be better than {listed(losers)}."
    verb = "is" if len(losers) == 1 else "are"
    shown = f"{listed(losers)} {verb} shown to be worse than {_winners(beaten, losers)}"
    return f"{said}{shown}." if len(best) == 1 else f"{said}{shown}; {_open(contrasts, best)}."


def _winners(beaten: Mapping[str, Sequence[str]], losers: Sequence[str]) -> str:
    """Those that beat all of them, or else who beats whom."""
    everywhere = [arm for arm in beaten[losers[0]] if all(arm in beaten[loser] for loser in losers)]
    if everywhere:
        return listed(everywhere)
    return "others (" + "; ".join(f"{loser} than {listed(beaten[loser])}" for loser in losers) + ")"


def _open(contrasts: Sequence[Contrast], best: Sequence[str]) -> str:
    """Which of those that nobody beats are not told apart."""
    return f"between {listed(best)} cannot tell ({_largest(contrasts, best)})"


def _largest(contrasts: Sequence[Contrast], best: Sequence[str]) -> str:
    """The largest difference among arms that nobody beats, and what telling it would take."""
    between = [c for c in contrasts if c.first in best and c.second in best]
    largest = max(between, key=lambda c: abs(c.difference))
    pair = f"{largest.first} and {largest.second}: " if len(best) > 2 else ""
    return f"{pair}{gap(largest)}; {missing(largest)}"


def verdict(
    bakeoff: Bakeoff, results: Sequence[ArmResult], contrasts: Sequence[Contrast], conclusions: Sequence[Conclusion]
) -> str:
    """One paragraph: each side by its first metric, what it costs, and what weakens the answer."""
    first: dict[str, Conclusion] = {}
    for conclusion in conclusions:
        first.setdefault(conclusion.side, conclusion)
    said = [f"{side.capitalize()}: {conclusion.text}" for side, conclusion in first.items()]
    wanted = {side: c for side, c in first.items() if side != "forgetting"}
    return " ".join([*said, *_cheapest(bakeoff, results, wanted), *_warnings(bakeoff, results, contrasts)])


def _cheapest(bakeoff: Bakeoff, results: Sequence[ArmResult], wanted: Mapping[str, Conclusion]) -> list[str]:
    """The arm to take if only the cost of training decides among those that no other is shown to beat."""
    if not wanted or len(results) < 2:
        return []
    unbeaten = [r for r in results if all(r.arm in c.best for c in wanted.values())]
    sides = listed(list(wanted))
    if not unbeaten:
        return [f"No arm is unbeaten on {sides} at once: which of them counts more is yours to say."]
    cheapest = min(unbeaten, key=lambda r: _cost(bakeoff, r))
    untrained = {a.arm.name for a in bakeoff.allowances if a.steps == 0}
    if cheapest.arm in untrained:
        trained = [r.arm for r in results if r.arm not in untrained]
        tail = f", so {listed(trained, 'or')} has not earned its training here" if trained else ""
        return [f"Nothing is shown to beat {cheapest.arm} on {sides}, and it needs no training{tail}."]
    if len(unbeaten) == 1:
        return [f"{cheapest.arm} is the only arm that nobody beats on {sides}: {_price(cheapest)}."]
    return [
        f"Of the arms that nobody beats on {sides} ({listed([r.arm for r in unbeaten])}), {cheapest.arm} is the "
        f"cheapest: {_price(cheapest)}."
    ]


def _cost(bakeoff: Bakeoff, result: ArmResult) -> float:
    by_flops = bakeoff.unit == "flops" and result.flops is not None
    return float(result.flops or 0.0) if by_flops else result.seconds


def _price(result: ArmResult) -> str:
    flops = "" if result.flops is None else f"{result.flops / 1e12:,.3g} TFLOP, "
    stored = "" if result.stored_bytes is None else f", {result.stored_bytes / 1e6:,.0f} MB stored"
    return f"{flops}{result.seconds:,.0f} s of training{stored} a run"


def _warnings(bakeoff: Bakeoff, results: Sequence[ArmResult], contrasts: Sequence[Contrast]) -> list[str]:
    said = []
    edges = [f"{r.arm} ({r.learning_rate:g})" for r in results if r.at_the_edge]
    if edges:
        said.append(
            f"The best learning rate that was tried lies at the edge of the sweep for {listed(edges)}: a wider sweep "
            "may raise it."
        )
    trained = [a for a in bakeoff.allowances if a.steps and any(r.arm == a.arm.name for r in results)]
    steps = [a.steps for a in trained]
    if steps and max(steps) > BEYOND * min(steps):
        counts = listed([f"{a.arm.name} {a.steps}" for a in trained])
        unit = {"flops": "FLOPs", "minutes": "time", "usd": "cost"}[bakeoff.unit]
        said.append(f"Equal {unit} gave unequal steps: {counts}.")
    said += _unequal_seconds(bakeoff, [r for r in results if any(r.arm == a.arm.name for a in trained)])
    if trained and any(c.seeds == 1 and _has(c, [a.arm.name for a in trained]) for c in contrasts):
        said.append(
            "With one seed this is about these models, not about their methods: another seed may turn it around."
        )
    return said


def _unequal_seconds(bakeoff: Bakeoff, trained: Sequence[ArmResult]) -> list[str]:
    """Steps were dealt by what a few of them took: where the runs took otherwise, the arms were not equal."""
    seconds = [r.seconds for r in trained]
    if bakeoff.unit == "flops" or not seconds or max(seconds) <= BEYOND * min(seconds):
        return []
    took = listed([f"{r.arm} {r.seconds:.0f} s" for r in trained])
    return [f"A run was planned to take the same time in each arm and took {took}, which favours the longer one."]


def _has(contrast: Contrast, arms: Sequence[str]) -> bool:
    return contrast.first in arms or contrast.second in arms
