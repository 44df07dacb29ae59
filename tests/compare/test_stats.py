"""Contrasts of trials: what cannot matter does not, and known cases come out as by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import studentized_range, t, tukey_hsd

from rankwise.compare.crossed import half_width, parts_of_difference, pooled, weights_of
from rankwise.compare.stats import contrasts, mean, tables
from rankwise.compare.studentized import quantile
from rankwise.errors import RunError
from rankwise.records import Contrast, Scores, Trial
from tests.builders import trial


def run(
    arm: str, seed: int, values: Sequence[float], *, metric: str = "facts", loss: bool = False,
    weights: Sequence[float] | None = None, steps: int = 20, purpose: str = "final",
) -> Trial:  # fmt: skip
    """Of a loss with weights, `values` are nats per token, as they are compared; they are kept as sums."""
    values = values if weights is None else [v * w for v, w in zip(values, weights, strict=True)]
    scores = Scores(
        metric=metric,
        unit="nats per token" if loss else "share",
        side="facts",
        higher_is_better=not loss,
        values=tuple(values),
        weights=None if weights is None else tuple(weights),
    )
    return trial(arm, seed, scores=(scores,), steps=steps, purpose=purpose)


def shares(arm: str, rates: Sequence[float], items: int = 60, steps: int = 20, shift: int = 0) -> list[Trial]:
    """One trial a seed, in which a share of the items is right."""
    draws = np.random.default_rng(shift)
    return [run(arm, k, (draws.random(items) < rate).astype(float), steps=steps) for k, rate in enumerate(rates)]


def numbers(contrast: Contrast) -> list[float]:
    return [contrast.difference, *contrast.interval, *contrast.adjusted, contrast.p_value]


hits = st.lists(st.sampled_from([0.0, 1.0]), min_size=8, max_size=8)
losses = st.lists(st.floats(0.01, 8.0), min_size=8, max_size=8)
seeds_of = st.lists(hits, min_size=2, max_size=3)


@settings(max_examples=40, deadline=None)
@given(seeds_of, seeds_of)
def test_swapped_arms_negate(first: list[list[float]], second: list[list[float]]) -> None:
    one = [run("a", k, v) for k, v in enumerate(first)]
    two = [run("b", k, v) for k, v in enumerate(second)]
    there, back = contrasts([*one, *two])[0], contrasts([*two, *one])[0]
    assert back.difference == pytest.approx(-there.difference, abs=1e-12)
    assert back.adjusted == pytest.approx((-there.adjusted[1], -there.adjusted[0]), abs=1e-9)
    assert back.p_value == pytest.approx(there.p_value, rel=1e-6)
    assert {there.answer, back.answer} in ({"cannot tell"}, {"better", "worse"})
    assert back.more_items == there.more_items


@settings(max_examples=40, deadline=None)
@given(seeds_of, seeds_of, st.permutations(range(8)))
def test_order_of_items_is_nothing(first: list[list[float]], second: list[list[float]], order: list[int]) -> None:
    def ask(places: Sequence[int]) -> list[float]:
        one = [run("a", k, [v[i] for i in places]) for k, v in enumerate(first)]
        two = [run("b", k, [v[i] for i in places]) for k, v in enumerate(second)]
        return numbers(contrasts([*one, *two])[0])

    assert ask(order) == pytest.approx(ask(range(8)), rel=1e-6, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(losses, min_size=2, max_size=3), losses, st.floats(0.1, 10), st.floats(0.5, 20))
def test_units_of_a_loss_are_nothing(
    trained: list[list[float]], base: list[float], scale: float, tokens: float
) -> None:
    """Losses in other units, and tokens counted in other ones."""

    def ask(times: float, tokens: float) -> Contrast:
        weights = [tokens * (k + 1) for k in range(8)]
        several = [
            run("a", k, [times * v for v in values], loss=True, weights=weights) for k, values in enumerate(trained)
        ]
        untrained = run("base", 0, [times * v for v in base], loss=True, weights=weights, steps=0)
        return contrasts([*several, untrained])[0]

    plain, scaled = ask(1.0, 1.0), ask(scale, tokens)
    assert scaled.difference == pytest.approx(scale * plain.difference, rel=1e-6, abs=1e-9)
    assert scaled.adjusted == pytest.approx([scale * end for end in plain.adjusted], rel=1e-5, abs=1e-7)
    assert scaled.answer == plain.answer


def test_a_loss_is_a_ratio_of_sums() -> None:
    weights = [1.0, 9.0, 2.0, 2.0, 3.0, 3.0]
    low = [run("a", k, [1.0, 2.0, 1.0, 1.0, 1.0, 1.0], loss=True, weights=weights) for k in (0, 1)]
    high = [run("b", k, [1.0, 3.0, 1.0, 1.0, 1.0, 1.0], loss=True, weights=weights) for k in (0, 1)]
    assert contrasts([*low, *high])[0].difference == pytest.approx(-9 / 20)


def test_an_item_without_tokens_weighs_nothing() -> None:
    weights = [1.0, 9.0, 2.0, 2.0, 3.0, 3.0]
    whole = [run("base", 0, [1.0, 2.0, 1.0, 1.0, 1.0, 1.5], loss=True, weights=weights, steps=0)]
    beside = [run("base", 0, [1.0, 2.0, 1.0, 1.0, 1.0, 1.5, 4.0], loss=True, weights=[*weights, 0.0], steps=0)]
    assert mean(tables(beside)[0], "base")[0] == pytest.approx(mean(tables(whole)[0], "base")[0])


def test_two_untrained_arms_give_the_paired_t_interval() -> None:
    """No seeds, no weights, no made-up items: the textbook."""
    draws = np.random.default_rng(0)
    first, second = draws.normal(2.0, 1.0, (2, 30))
    found = contrasts([run("base", 0, first, loss=True, steps=0), run("fewshot", 0, second, loss=True, steps=0)])[0]
    apart = first - second
    half = t.ppf(0.975, 29) * apart.std(ddof=1) / math.sqrt(30)
    assert found.interval == pytest.approx((apart.mean() - half, apart.mean() + half), rel=2e-4)
    assert found.adjusted == found.interval


def test_where_seeds_are_all_the_noise_it_is_tukeys_test() -> None:
    """Every item of a run moves alike: what is left is one value a run."""
    runs = np.array([[1.0, 1.3, 0.9], [1.6, 1.2, 1.5], [2.9, 3.1, 2.6]])
    trials = [
        run(f"arm {k}", seed, [value] * 20, loss=True) for k, row in enumerate(runs) for seed, value in enumerate(row)
    ]
    theirs = tukey_hsd(*runs)
    for found, (i, j) in zip(contrasts(trials), [(0, 1), (0, 2), (1, 2)], strict=True):
        own = (runs[i].var(ddof=1) + runs[j].var(ddof=1)) / 2 / runs.var(axis=1, ddof=1).mean()
        half = theirs.confidence_interval().high[i, j] - theirs.statistic[i, j]
        middle = (found.adjusted[0] + found.adjusted[1]) / 2
        assert middle == pytest.approx(theirs.statistic[i, j])
        assert found.adjusted[1] - middle == pytest.approx(half * math.sqrt(max(1.0, own)), rel=1e-3)


def test_quantiles_are_those_of_scipy() -> None:
    for arms, df, error in ((2, 1, 0.05), (2, 47, 1e-4), (3, 2, 0.05), (4, 6, 0.05), (6, 199, 0.001)):
        theirs = studentized_range.isf(error, arms, df) / math.sqrt(2)
        assert float(quantile(arms, df, error)) == pytest.approx(theirs, rel=5e-4)


def test_identical_runs_are_never_told_apart() -> None:
    found = contrasts([*shares("a", [0.5, 0.6], shift=1), *shares("b", [0.5, 0.6], shift=1)])[0]
    assert (found.difference, found.answer, found.p_value) == (0.0, "cannot tell", 1.0)
    assert found.more_items is None


def test_all_against_nothing_is_told_with_a_width() -> None:
    found = contrasts([*shares("a", [1.0, 1.0, 1.0]), *shares("base", [0.0], steps=0)])[0]
    assert found.answer == "better"
    assert 0.8 < found.adjusted[0] < found.adjusted[1] <= 1.0


def test_the_sweep_says_nothing() -> None:
    told = [*shares("a", [0.9, 0.9]), *shares("b", [0.1, 0.1])]
    swept = run("b", 0, [1.0] * 60, purpose="sweep")
    assert contrasts([*told, swept]) == contrasts(told)


def test_seeds_that_scatter_take_the_answer_away() -> None:
    """The same mean difference over the same items, from runs that agree and from runs that do not."""
    agree = contrasts([*shares("a", [0.7, 0.7], 200), *shares("b", [0.3, 0.3], 200, shift=5)])[0]
    scatter = contrasts([*shares("a", [0.4, 1.0], 200), *shares("b", [0.6, 0.0], 200, shift=5)])[0]
    assert (agree.answer, scatter.answer) == ("better", "cannot tell")
    assert scatter.more_items is None  # no number of items helps


def test_more_items_is_what_it_takes() -> None:
    """As many further items as said, of the same kind, tell the same difference in about 80 % of repeats."""
    trials = [*shares("base", [0.5], 100, steps=0, shift=2), *shares("fewshot", [0.62], 100, steps=0)]
    found = contrasts(trials)[0]
    assert found.answer == "cannot tell"
    assert found.more_items is not None
    wanted = 100 + found.more_items
    drawn = np.random.default_rng(4).integers(0, 100, (1000, wanted))
    base, fewshot = (np.array(t.scores[0].values)[drawn][:, None] for t in trials)
    share = weights_of(wanted, None)
    parts = parts_of_difference(base, fewshot, share, pooled([], share), (False, False), bounded=True)
    assert 0.75 < float((np.abs(parts.centre) > half_width(parts, 0.05)).mean()) < 0.85


def test_few_items_are_no_answer() -> None:
    found = contrasts([*(run("a", k, [1.0] * 5) for k in (0, 1)), run("base", 0, [0.0] * 5, steps=0)])[0]
    assert found.answer == "cannot tell"


def test_one_seed_is_said() -> None:
    found = contrasts([*shares("a", [0.9]), *shares("base", [0.1], steps=0)])[0]
    assert found.seeds == 1
    assert "not of their methods" in found.source


def test_an_arm_that_lost_a_seed_borrows_what_the_others_say() -> None:
    whole = [*shares("a", [0.9, 0.7, 0.8], 100), *shares("b", [0.5, 0.3, 0.4], 100, shift=3)]
    less = [*whole[:3], whole[3]]
    assert contrasts(less)[0].seeds == 1
    width = [c.adjusted[1] - c.adjusted[0] for c in (contrasts(whole)[0], contrasts(less)[0])]
    assert width[1] > width[0]


def test_mean_stays_a_share() -> None:
    table = tables(shares("a", [1.0, 1.0]))[0]
    value, (low, high) = mean(table, "a")
    assert value == 1.0
    assert 0.9 < low < high == 1.0


def test_a_mean_loss_is_not_below_nothing() -> None:
    apart = [run("a", 0, [0.0] * 7 + [0.1], loss=True), run("a", 1, [0.3] * 8, loss=True), run("b", 0, [1.0] * 8)]
    value, (low, high) = mean(next(t for t in tables(apart) if t.about.unit != "share"), "a")
    assert low == 0.0 < value < high


def test_other_items_are_refused() -> None:
    with pytest.raises(RunError, match="same items"):
        contrasts([*shares("a", [0.5, 0.5], 60), *shares("b", [0.5, 0.5], 61)])
