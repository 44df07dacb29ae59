"""The outcome of a comparison says what its contrasts show, and no more."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from rankwise.compare.conclude import conclude
from rankwise.errors import RunError
from rankwise.records import Allowance, Arm, Bakeoff, MethodChoice, Outcome, Scores, Trial
from tests.builders import bakeoff, trial

TRAINED = {"lora:r=8": "lora", "full": "full"}


def allowance(arm: str, steps: int) -> Allowance:
    method = MethodChoice(name=TRAINED[arm]) if arm in TRAINED else None
    kind = "trained" if method else arm
    plain = bakeoff().allowances[1]
    return plain.model_copy(update={"arm": Arm(name=arm, kind=kind, method=method), "steps": steps})


def planned(steps: dict[str, int], seeds: Sequence[int] = (0, 1, 2)) -> Bakeoff:
    allowances = tuple(allowance(arm, count) for arm, count in steps.items())
    return bakeoff().model_copy(update={"allowances": allowances, "seeds": tuple(seeds)})


def answers(share: float, items: int, seed: int) -> tuple[float, ...]:
    return tuple((np.random.default_rng(seed).random(items) < share).astype(float).tolist())


def runs(
    arm: str, style: float, facts: float, *, steps: int = 20, seconds: float = 30.0, items: int = 80,
    seeds: int = 3, rate: float | None = 1e-3, tried: Sequence[float] = (3e-4, 1e-3, 3e-3),
) -> list[Trial]:  # fmt: skip
    """Final runs of an arm and those of its sweep; `steps=0`: untrained, one trial."""
    trained = steps > 0
    start = 1000 * len(arm)
    final = [
        trial(
            arm,
            seed,
            scores=tuple(
                Scores(
                    metric=m, unit="share", side=side, higher_is_better=True, values=answers(rate_of, items, start + k)
                )
                for m, side, rate_of, k in (("format", "style", style, seed), ("stated", "facts", facts, 100 + seed))
            ),
            steps=steps,
            training_seconds=seconds if trained else 0.0,
            learning_rate=rate if trained else None,
            flops=2e13 if trained else 0.0,
        )
        for seed in range(seeds if trained else 1)
    ]
    swept = [trial(arm, 0, scores=(), purpose="sweep", learning_rate=r, steps=5) for r in tried if trained]
    return [*final, *swept]


@cache
def of_four() -> Outcome:
    trials = [
        *runs("base", 0.0, 0.1, steps=0),
        *runs("fewshot", 0.6, 0.12, steps=0),
        *runs("lora:r=8", 0.97, 0.12, seconds=20.0),
        *runs("full", 0.97, 0.16, seconds=30.0),
    ]
    return conclude(planned({"base": 0, "fewshot": 0, "lora:r=8": 20, "full": 20}), trials)


def test_each_side_has_its_own_answer() -> None:
    found = of_four()
    style, facts = found.conclusions
    assert (style.side, set(style.best)) == ("style", {"lora:r=8", "full"})
    assert (facts.side, facts.best) == ("facts", ("base", "fewshot", "lora:r=8", "full"))
    assert "base and fewshot are shown to be worse than lora:r=8 and full" in style.text
    assert "cannot tell any of them apart" in facts.text
    assert len(found.contrasts) == 12
    assert found.verdict.startswith("Style: format (base 0 %,")
    assert " Facts: stated (" in found.verdict


def test_what_would_tell_it_is_said() -> None:
    untrained = conclude(
        planned({"base": 0, "fewshot": 0}), [*runs("base", 0.5, 0.4, steps=0), *runs("fewshot", 0.5, 0.55, steps=0)]
    )
    facts = untrained.contrasts[1]
    assert facts.answer == "cannot tell"
    assert facts.more_items is not None
    assert f"needs about {facts.more_items:,} more probes" in untrained.verdict
    noisy = [
        t.model_copy(update={"scores": (t.scores[0].model_copy(update={"values": (float(t.seed == 0),) * 80}),)})
        for t in runs("full", 0.5, 0.5, tried=())
    ]
    trained = conclude(planned({"base": 0, "full": 20}), [*runs("base", 0.5, 0.4, steps=0), *noisy])
    assert "needs more seeds than 3: no number of held-out rows would tell it" in trained.verdict


def test_best_are_those_that_no_contrast_beats() -> None:
    found = of_four()
    for conclusion in found.conclusions:
        of_metric = [c for c in found.contrasts if c.metric == conclusion.metric]
        losers = {c.second for c in of_metric if c.answer == "better"} | {
            c.first for c in of_metric if c.answer == "worse"
        }
        assert set(conclusion.best) == {r.arm for r in found.results} - losers


def test_the_cheapest_of_the_unbeaten_is_named() -> None:
    verdict = of_four().verdict
    assert "(lora:r=8 and full), lora:r=8 is the cheapest: 20 TFLOP, 20 s of training" in verdict


def test_an_untrained_arm_that_nobody_beats_is_the_cheapest() -> None:
    trials = [*runs("base", 0.5, 0.5, steps=0), *runs("full", 0.5, 0.5)]
    verdict = conclude(planned({"base": 0, "full": 20}), trials).verdict
    assert "Nothing is shown to beat base on style and facts, and it needs no training, so full has not" in verdict


def test_no_arm_is_best_at_everything() -> None:
    trials = [*runs("lora:r=8", 0.9, 0.1), *runs("full", 0.3, 0.9)]
    found = conclude(planned({"lora:r=8": 20, "full": 20}), trials)
    assert [c.best for c in found.conclusions] == [("lora:r=8",), ("full",)]
    assert "lora:r=8 is shown to be better than full" in found.verdict
    assert "No arm is unbeaten on style and facts at once" in found.verdict


def test_rates_at_the_edge_are_said() -> None:
    trials = [*runs("lora:r=8", 0.9, 0.1, rate=3e-3), *runs("full", 0.3, 0.9)]
    found = conclude(planned({"lora:r=8": 20, "full": 20}), trials)
    assert [r.at_the_edge for r in found.results] == [True, False]
    assert "lies at the edge of the sweep for lora:r=8 (0.003)" in found.verdict
    assert "edge" not in of_four().verdict


def test_a_rate_that_nobody_swept_has_no_edge() -> None:
    found = conclude(planned({"full": 20}), runs("full", 0.9, 0.1, tried=(1e-3,)))
    assert not found.results[0].at_the_edge


def test_unequal_steps_are_said() -> None:
    trials = [*runs("lora:r=8", 0.9, 0.1), *runs("full", 0.3, 0.9, steps=8)]
    verdict = conclude(planned({"lora:r=8": 20, "full": 8}), trials).verdict
    assert "Equal time gave unequal steps: lora:r=8 20 and full 8." in verdict


def test_unequal_seconds_are_said_where_they_were_planned_equal() -> None:
    bakeoff, full = planned({"lora:r=8": 20, "full": 20}), runs("full", 0.3, 0.9)
    slow, alike = (conclude(bakeoff, [*runs("lora:r=8", 0.9, 0.1, seconds=n), *full]).verdict for n in (60.0, 31.0))
    assert "took lora:r=8 60 s and full 30 s, which favours the longer one" in slow
    assert "planned to take the same time" not in alike


def test_one_seed_is_said_once() -> None:
    trials = [*runs("base", 0.0, 0.1, steps=0), *runs("full", 0.9, 0.1, seeds=1)]
    verdict = conclude(planned({"base": 0, "full": 20}, seeds=(0,)), trials).verdict
    assert verdict.count("With one seed") == 1
    assert "With one seed" not in of_four().verdict


def test_results_hold_means_and_what_was_spent() -> None:
    found = of_four()
    lora = next(r for r in found.results if r.arm == "lora:r=8")
    assert lora.intervals["format"][0] < lora.means["format"] <= lora.intervals["format"][1]
    assert lora.learning_rate == 1e-3
    assert found.spent_seconds == pytest.approx(3 * 20 + 3 * 30 + 6 * 30 + 14 * 12)
    assert found.spent_usd is None
    assert found.bakeoff_hash == planned({"base": 0, "fewshot": 0, "lora:r=8": 20, "full": 20}).content_hash()


def test_money_is_told_where_an_hour_has_a_price() -> None:
    found = conclude(planned({"full": 20}), runs("full", 0.9, 0.1), usd_per_hour=3.6)
    assert found.spent_usd == pytest.approx(found.spent_seconds / 1000)


def test_what_is_not_there_yet_is_noted() -> None:
    trials = [*runs("base", 0.0, 0.1, steps=0), *runs("full", 0.9, 0.1, seeds=2)]
    found = conclude(planned({"base": 0, "full": 20, "lora:r=8": 20}), trials)
    assert found.notes == ("lora:r=8: no final run, so nothing is said of it", "full: 2 of 3 seeds have a final run")


def test_nothing_finished_is_an_error() -> None:
    with pytest.raises(RunError, match="no arm of the comparison has a final run"):
        conclude(planned({"full": 20}), [])
