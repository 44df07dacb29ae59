"""Two scores on the same items: paired where there is a number an item, honest where there is none."""

from typing import Any

import numpy as np
import pytest

from rankwise.errors import BenchmarkError
from rankwise.evaluate.benchmarks import compared, interval_of
from rankwise.evaluate.paired import compare_shares, wilson
from rankwise.records import BenchmarkResult, BenchmarkScore
from tests.builders import benchmark_score


def scored(outcomes: list[float], **changes: Any) -> BenchmarkScore:
    """As the harness would score these items, weighted or not."""
    weights = changes.pop("weights", [1.0] * len(outcomes))
    if outcomes:
        mean = sum(outcomes) / sum(weights)
        changes = {"value": float(np.exp(-mean)) if "aggregation" in changes else mean, **changes}
    return benchmark_score(tuple(outcomes), weights=tuple(weights), **changes)


def result(base: BenchmarkScore, tuned: BenchmarkScore) -> BenchmarkResult:
    (found,) = compared([base], [tuned])
    return found


def test_right_and_wrong_are_paired_item_by_item() -> None:
    rng = np.random.default_rng(0)
    base = [float(x) for x in rng.random(200) < 0.5]
    tuned = [float(x or rng.random() < 0.3) for x in base]
    found = result(scored(base), scored(tuned))
    asked = compare_shares("acc", [x == 1 for x in base], [x == 1 for x in tuned], "")
    assert found.interval == asked.difference_interval
    assert found.difference == pytest.approx(asked.difference) and found.answer == asked.answer == "better"
    worse = result(scored(tuned), scored(base))
    assert worse.answer == "worse" and worse.difference == -found.difference  # type: ignore[operator]
    assert result(scored(base), scored(base)).answer == "cannot tell"
    assert result(scored(base, higher_is_better=None), scored(tuned, higher_is_better=None)).answer == "cannot tell"


def test_perplexity_is_paired_over_texts_and_weighs_their_words() -> None:
    rng = np.random.default_rng(1)
    words = rng.integers(20, 200, 60).astype(float)
    base = -words * rng.normal(3.0, 0.4, 60)
    tuned = base + words * rng.normal(0.05, 0.02, 60)  # each word a little likelier: texts differ far more than that
    kind = {"aggregation": "perplexity", "unit": "perplexity", "higher_is_better": False, "weights": list(words)}
    one, other = scored(list(base), **kind), scored(list(tuned), **kind)
    found = result(one, other)
    exact = np.exp(-tuned.sum() / words.sum()) - np.exp(-base.sum() / words.sum())
    assert found.difference == pytest.approx(exact) and found.answer == "better"
    assert found.interval and found.interval[0] < exact < found.interval[1] < 0
    alone = interval_of("perplexity", one.outcomes, one.weights, one.value, None)
    assert alone and alone[0] < one.value < alone[1]
    assert alone[1] - alone[0] > 3 * (found.interval[1] - found.interval[0])  # what pairing is for


def test_bits_per_byte_are_the_same_in_another_unit() -> None:
    outcomes, weights = [-10.0, -30.0, -25.0, -14.0, -8.0, -40.0], [5.0, 12.0, 11.0, 6.0, 4.0, 17.0]
    nats = interval_of("mean", outcomes, weights, 0.0, None)
    bits = interval_of("bits_per_byte", outcomes, weights, 0.0, None)
    assert nats and bits and bits == pytest.approx((-nats[1] / np.log(2), -nats[0] / np.log(2)), rel=1e-3)


def test_a_share_has_wilson_s_interval_and_others_their_standard_error() -> None:
    assert interval_of("mean", [1.0, 0.0, 1.0], [1.0] * 3, 2 / 3, 0.3) == wilson([True, False, True])
    low, high = interval_of("other", [], [], 10.0, 1.0) or (0, 0)
    assert (low, high) == pytest.approx((8.04, 11.96), abs=0.001)
    assert interval_of("other", [], [], 10.0, None) is None


def test_without_a_number_an_item_the_two_are_taken_as_independent() -> None:
    kind: dict[str, Any] = {"aggregation": "other", "unit": "score", "metric": "f1"}
    found = result(scored([], value=0.50, **kind), scored([], value=0.61, **kind))
    assert found.interval == pytest.approx((0.11 - 1.96 * 0.05 * 2**0.5, 0.11 + 1.96 * 0.05 * 2**0.5), abs=1e-4)
    assert found.answer == "cannot tell" and "independent" in found.source
    unknown = result(scored([], value=0.5, stderr=None, **kind), scored([], value=0.9, stderr=None, **kind))
    assert unknown.interval is None and unknown.answer == "cannot tell" and unknown.difference == pytest.approx(0.4)


def test_few_items_decide_nothing() -> None:
    kind: dict[str, Any] = {"unit": "score"}
    found = result(scored([0.1, 0.2, 0.3], **kind), scored([0.5, 0.6, 0.7], **kind))
    assert found.interval and found.interval[0] > 0 and found.answer == "cannot tell"


def test_a_group_is_paired_within_its_tasks() -> None:
    rng = np.random.default_rng(2)
    sides: list[list[BenchmarkScore]] = [[], []]
    for task, n in (("a", 300), ("b", 100)):
        before = [float(x) for x in rng.random(n) < 0.4]
        after = [float(x or rng.random() < 0.1) for x in before]
        for side, outcomes in zip(sides, (before, after), strict=True):
            side.append(scored(outcomes, task=task))
    for side in sides:
        value = 0.75 * side[0].value + 0.25 * side[1].value
        side.append(
            scored([], task="both", aggregation="subtasks", items=400, subtasks={"a": 0.75, "b": 0.25}, value=value)
        )
    found = {r.tuned.task: r for r in compared(*sides)}
    pooled = compare_shares("acc", *([x == 1 for s in side[:2] for x in s.outcomes] for side in sides), source="")
    assert found["both"].difference == pytest.approx(pooled.difference)
    assert found["both"].interval == pytest.approx(pooled.difference_interval, abs=0.006)
    assert found["both"].answer == "better"


def test_other_items_are_not_compared() -> None:
    with pytest.raises(BenchmarkError, match="not asked the same items"):
        compared([scored([1.0, 0.0])], [scored([1.0, 0.0], data_hash="e" * 64)])


def test_a_model_alone_is_compared_with_nothing() -> None:
    (found,) = compared(None, [scored([1.0, 0.0])])
    assert found.base is found.difference is found.interval is found.answer is None


def test_outcomes_are_one_line_in_a_file_and_exact() -> None:
    one = scored([1.0, 0.0, 1 / 3])
    assert f'"outcomes": "1 0 {1 / 3!r}"' in one.model_dump_json(indent=1)
    assert BenchmarkScore.model_validate_json(one.model_dump_json()) == one
