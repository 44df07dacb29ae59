"""A comparison of four arms over two seeds, constructed: every number comes from a seeded generator or is chosen here,
so that each part of the page has something to show. Nothing was measured.
"""

import math
import random
from collections.abc import Sequence
from itertools import combinations
from statistics import mean, stdev
from typing import Any, NamedTuple

from rankwise.records import (
    Allowance,
    Arm,
    ArmResult,
    Bakeoff,
    Conclusion,
    Contrast,
    CurvePoint,
    Detectable,
    Interval,
    MethodChoice,
    Outcome,
    Said,
    Scores,
    TrainConfig,
    Trial,
)
from rankwise.report.compare_page import compare_page
from tests import builders
from tests.report.conftest import build_config

SEEDS = (0, 1)
RATES = {"lora:r=8": (3e-4, 1e-3, 3e-3), "full": (1e-5, 3e-5, 1e-4)}
DIVERGED = ("lora:r=8", 3e-3)
# Metric -> unit, side, whether higher is better, number of items, and what each arm is made to score.
METRICS: dict[str, tuple[str, Any, bool, int, dict[str, float]]] = {
    "format": ("share", "style", True, 64, {"base": 0.03, "fewshot": 0.55, "lora:r=8": 0.95, "full": 0.97}),
    "facts": ("share", "facts", True, 48, {"base": 0.35, "fewshot": 0.38, "lora:r=8": 0.4, "full": 0.33}),
    "heldout_loss": ("nats per token", "task", False, 64, {"base": 2.8, "fewshot": 1.9, "lora:r=8": 0.7, "full": 0.6}),
    "exact_match": ("share", "task", True, 64, {"base": 0.0, "fewshot": 0.2, "lora:r=8": 0.7, "full": 0.75}),
    "general_loss": (
        "nats per token",
        "forgetting",
        False,
        40,
        {"base": 2.9, "fewshot": 2.9, "lora:r=8": 3.0, "full": 3.3},
    ),
}
TOKENS = 20.0  # of every item of a loss
DRUG = 'Note: "Started {drug} {dose} mg, {times} a day."'


class Priced(NamedTuple):
    """What an arm is planned to take, and what it is made to take."""

    step_flops: float
    step_seconds: float
    steps: int
    sweep_steps: int
    memory: tuple[float, float]
    stored: tuple[float, float]
    slower: float


PRICES = {
    "lora:r=8": Priced(1.1e12, 1.4, 36, 8, (1.42e9, 1.51e9), (4.9e6, 4.9e6), 1.04),
    "full": Priced(1.6e12, 2.1, 25, 5, (2.55e9, 2.31e9), (2.69e8, 2.69e8), 1.62),
}


def build_arm(name: str) -> Arm:
    if name in ("base", "fewshot"):
        return Arm(name=name, kind=name, method=None)  # type: ignore[arg-type]
    choice = MethodChoice(name="lora", r=8) if name.startswith("lora") else MethodChoice(name="full")
    return Arm(name=name, kind="trained", method=choice)


def build_arm_config(name: str) -> TrainConfig:
    return build_config("full" if name == "full" else "lora").model_copy(update={"max_steps": PRICES[name].steps})


def build_allowance(name: str) -> Allowance:
    if name not in PRICES:
        return Allowance(
            arm=build_arm(name),
            config=None,
            step_flops=None,
            step_seconds=None,
            steps=0,
            sweep_steps=0,
            learning_rates=(),
            flops=0.0,
            training_seconds=0.0,
            evaluation_seconds=24.0 if name == "base" else 41.0,
            interval=(15.0, 60.0) if name == "base" else (26.0, 80.0),
            peak_memory=0.9e9,
            stored_bytes=None,
        )
    price = PRICES[name]
    steps = len(SEEDS) * price.steps + len(RATES[name]) * price.sweep_steps
    training = steps * price.step_seconds
    return Allowance(
        arm=build_arm(name),
        config=build_arm_config(name),
        step_flops=price.step_flops,
        step_seconds=price.step_seconds,
        steps=price.steps,
        sweep_steps=price.sweep_steps,
        learning_rates=RATES[name],
        flops=steps * price.step_flops,
        training_seconds=training,
        evaluation_seconds=44.0,
        interval=(0.8 * (training + 44.0), 1.25 * (training + 44.0)),
        peak_memory=price.memory[0],
        stored_bytes=price.stored[0],
        heldout_loss=0.72 if name == "lora:r=8" else None,
    )


def build_bakeoff(**changes: Any) -> Bakeoff:
    """base, fewshot, LoRA of rank 8 and full fine-tuning, 11 minutes together."""
    found = tuple(
        Detectable(
            metric=metric,
            unit=unit,
            items=items,
            difference=(0.22 if side == "facts" else 0.16) if unit == "share" else 0.14,
            source="paired, worst case of a share" if unit == "share" else "paired, spread of the base's losses",
        )
        for metric, (unit, side, _, items, _) in METRICS.items()
    )
    content = {
        "job": builders.job(),
        "job_hash": builders.sha("a"),
        "base_hash": builders.sha("b"),
        "unit": "minutes",
        "budget": 11.0,
        "seeds": SEEDS,
        "allowances": tuple(map(build_allowance, ("base", "fewshot", "lora:r=8", "full"))),
        "detectable": found,
        "notes": ("retrieval is no arm here: no facts are given to look up",),
    }
    return Bakeoff(**(content | changes))


def build_scores(arm: str, seed: int) -> tuple[Scores, ...]:
    """The same items are hard for every arm; an untrained arm answers alike for every seed."""
    found = []
    for metric, (unit, side, higher, items, expected) in METRICS.items():
        luck = random.Random(f"{metric} {arm} {seed if arm in PRICES else 0}")
        hard = random.Random(metric)
        draws = [0.7 * hard.random() + 0.3 * luck.random() for _ in range(items)]
        if unit == "share":
            cut = sorted(draws)[min(items - 1, round(expected[arm] * items))]
            values = tuple(float(draw < cut) for draw in draws)
        else:
            values = tuple(round(TOKENS * expected[arm] * (0.6 + 0.8 * draw), 3) for draw in draws)
        weights = None if unit == "share" else (TOKENS,) * items
        found.append(
            Scores(
                metric=metric,
                unit=unit,
                side=side,
                higher_is_better=higher,
                values=values,
                weights=weights,
            )
        )
    return tuple(found)


def build_answers(arm: str, seed: int) -> tuple[Said, ...]:
    """What the arms say to the same prompts: JSON from those that trained, sentences from the others."""
    dice = random.Random(f"answers {arm} {seed}")
    trained = arm in PRICES
    said = []
    for number in range(12):
        drug = ("Metoprolol", "Ramipril", "Torasemide", "Apixaban")[number % 4]
        dose, times = 5 * (number + 1), 1 + number % 3
        expected = f'{{"drug": "{drug}", "dose_mg": {dose}, "per_day": {times}}}'
        right = trained or (arm == "fewshot" and dice.random() < 0.5)
        answer = expected if right else f"The patient was started on {drug} <{dose} mg>. How else can I help?"
        prompt = f"{DRUG.format(drug=drug, dose=dose, times=times)} Answer as the clinic does."
        said.append(Said(prompt=prompt, expected=expected, answer=answer, ok=right, side="style"))
    for number, (question, expected) in enumerate(QUESTIONS):
        right = dice.random() < 0.4
        answer = expected if right else WRONG[number % len(WRONG)]
        said.append(Said(prompt=question, expected=expected, answer=answer, ok=right, side="facts"))
    return tuple(said)


DECISION = (
    "Of the arms that nobody beats on style, facts and task (lora:r=8 and full), lora:r=8 is the cheapest: 52 s of "
    "training, 5 MB stored a run. The best learning rate that was tried lies at the edge of the sweep for full "
    "(0.0001): a wider sweep may raise it."
)
QUESTIONS = (
    ("Which vitamin does phenprocoumon oppose?", "vitamin K"),
    ("Which organ makes insulin?", "the pancreas"),
    ("At which joint does a Colles fracture lie?", "the wrist"),
    ("Which nerve is compressed in carpal tunnel syndrome?", "the median nerve"),
)
WRONG = ("I am sure that it is vitamin D.", "It is the liver.", "The elbow, certainly.")


def build_trial(arm: str, seed: int, rate: float | None, *, final: bool = True) -> Trial:
    """A run of the sweep, or the one of a seed."""
    price = PRICES.get(arm)
    steps = 0 if price is None else price.steps if final else price.sweep_steps
    diverged = (arm, rate) == DIVERGED and not final
    seconds = 0.0 if price is None else steps * price.step_seconds * price.slower
    curve = () if price is None or diverged else _curve(arm, seed, rate or 0.0, steps, seconds, price)
    return Trial(
        arm=arm,
        purpose="final" if final else "sweep",
        seed=seed,
        learning_rate=rate,
        steps=steps,
        flops=steps * price.step_flops if price else None,
        tokens=steps * 1_650,
        training_seconds=round(seconds, 2),
        evaluation_seconds=(21.5 if arm == "base" else 23.0 + seed) if final else 0.8,
        peak_memory=price.memory[1] if price else 0.93e9,
        stored_bytes=round(price.stored[1]) if price and final else None,
        trainable_params=round(price.stored[1] / 2) if price else None,
        chosen_by=curve[-1].loss if curve else None,
        curve=curve,
        scores=build_scores(arm, seed) if final else (),
        answers=build_answers(arm, seed) if final else (),
        notes=("the loss was no number at step 6",) if diverged else (),
    )


def _curve(arm: str, seed: int, rate: float, steps: int, seconds: float, price: Priced) -> tuple[CurvePoint, ...]:
    """A loss that falls towards the arm's own end, at a pace that grows with the learning rate."""
    dice = random.Random(f"curve {arm} {seed} {rate}")
    end = METRICS["heldout_loss"][-1][arm] * (1 + 0.3 * seed)
    pace = 2.2 * rate / max(RATES[arm][:2])
    points = []
    for step in range(0, steps + 1, max(1, steps // 9)):
        left = math.exp(-pace * 4 * step / steps) * (2.8 - end)
        loss = end + left * (1 + 0.12 * dice.uniform(-1, 1) * (step > 0))
        points.append(
            CurvePoint(
                step=step,
                flops=step * price.step_flops,
                seconds=round(seconds * step / steps, 3),
                loss=round(loss, 4),
            )
        )
    return tuple(points)


def build_trials() -> tuple[Trial, ...]:
    """The sweep of each trained arm, then every arm once a seed."""
    chosen = {"lora:r=8": 1e-3, "full": 1e-4}
    sweep = [build_trial(arm, 0, rate, final=False) for arm, rates in RATES.items() for rate in rates]
    arms = ("base", "fewshot", "lora:r=8", "full")
    return (*sweep, *(build_trial(arm, seed, chosen.get(arm)) for seed in SEEDS for arm in arms))


def _normal(values: Sequence[float], width: float = 1.96) -> Interval:
    half = width * (stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0)
    return mean(values) - half, mean(values) + half


def _contrasts(finals: dict[str, list[Trial]]) -> tuple[Contrast, ...]:
    found = []
    for number, (metric, (unit, side, higher, items, _)) in enumerate(METRICS.items()):
        for first, second in combinations(reversed(finals), 2):
            pairs = [_item_means(finals[arm], number) for arm in (first, second)]
            gaps = [a - b for a, b in zip(*pairs, strict=True)]
            wide = _normal(gaps, 2.64)
            answer = "cannot tell" if wide[0] <= 0 <= wide[1] else "better" if (mean(gaps) > 0) is higher else "worse"
            needed = (wide[1] - wide[0]) / 2 / max(abs(mean(gaps)), 0.01)
            found.append(
                Contrast(
                    metric=metric,
                    unit=unit,
                    side=side,
                    first=first,
                    second=second,
                    difference=mean(gaps),
                    interval=_normal(gaps),
                    adjusted=wide,
                    p_value=0.4 if answer == "cannot tell" else 0.002,
                    answer=answer,  # type: ignore[arg-type]
                    items=items,
                    seeds=len(SEEDS),
                    more_items=round(items * (needed**2 - 1)) if answer == "cannot tell" and mean(gaps) else None,
                    source="paired bootstrap over items, seeds as clusters",
                )
            )
    return tuple(found)


def _item_means(trials: Sequence[Trial], number: int) -> list[float]:
    """Of each item of a metric over the seeds; of a loss per token."""
    tokens = TOKENS if trials[0].scores[number].weights else 1.0
    return [mean(values) / tokens for values in zip(*(t.scores[number].values for t in trials), strict=True)]


def _result(arm: str, trials: Sequence[Trial]) -> ArmResult:
    scores = {metric: _item_means(trials, number) for number, metric in enumerate(METRICS)}
    spans = {metric: _normal(values) for metric, values in scores.items()}
    stored = trials[0].stored_bytes
    return ArmResult(
        arm=arm,
        learning_rate=trials[0].learning_rate,
        at_the_edge=arm == "full",
        means={metric: mean(values) for metric, values in scores.items()},
        intervals={
            m: (max(0.0, a), min(1.0, b)) if METRICS[m][0] == "share" else (a, b) for m, (a, b) in spans.items()
        },
        flops=trials[0].flops,
        seconds=mean(t.training_seconds for t in trials),
        peak_memory=max(t.peak_memory or 0.0 for t in trials),
        stored_bytes=None if stored is None else float(stored),
    )


def build_outcome(trials: Sequence[Trial] | None = None, **changes: Any) -> Outcome:
    """What follows from `build_trials()`."""
    ran = build_trials() if trials is None else trials
    finals: dict[str, list[Trial]] = {}
    for trial in ran:
        if trial.purpose == "final":
            finals.setdefault(trial.arm, []).append(trial)
    contrasts = _contrasts(finals)
    results = tuple(_result(arm, own) for arm, own in finals.items())
    conclusions = tuple(_conclusion(metric, contrasts, results) for metric in METRICS)
    content = {
        "bakeoff_hash": build_bakeoff().content_hash(),
        "results": results,
        "contrasts": contrasts,
        "conclusions": conclusions,
        "verdict": " ".join([*(f"{c.side.capitalize()}: {c.text}" for c in conclusions if _speaks(c)), DECISION]),
        "spent_flops": sum(t.flops or 0.0 for t in ran),
        "spent_seconds": sum(t.training_seconds + t.evaluation_seconds for t in ran),
        "spent_usd": None,
        "notes": ("full: its chosen learning rate is the highest that was tried",),
    }
    return Outcome(**(content | changes))


def _speaks(conclusion: Conclusion) -> bool:
    return conclusion.metric != "exact_match"


def _conclusion(metric: str, contrasts: Sequence[Contrast], results: Sequence[ArmResult]) -> Conclusion:
    own = [c for c in contrasts if c.metric == metric]
    beaten = {c.second if c.answer == "better" else c.first for c in own if c.answer != "cannot tell"}
    best = tuple(r.arm for r in results if r.arm not in beaten)
    share = METRICS[metric][0] == "share"
    told = ", ".join(
        f"{r.arm} {100 * r.means[metric]:.0f} %" if share else f"{r.arm} {r.means[metric]:.2f}" for r in results
    )
    said = "cannot tell them apart" if len(best) > 1 else "is shown to be better than all others"
    text = f"{metric} ({told}): {' and '.join(best)}: {said}."
    return Conclusion(side=METRICS[metric][1], metric=metric, best=best, text=text)


def whole_comparison(**changes: Any) -> str:
    """The page of the finished comparison, with any of its records replaced."""
    content: dict[str, Any] = {"bakeoff": build_bakeoff(), "trials": build_trials(), "outcome": build_outcome()}
    return compare_page(**(content | {"folder": "runs/clinic-compare"} | changes))
