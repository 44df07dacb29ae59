"""The benchmark's arithmetic by hand, and its committed result against its page and against the code."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.memory import bench
from benchmarks.memory.compare import CAP, error_of, metrics, quantile, summary
from benchmarks.memory.intervals import ENOUGH, exact, intervals, left_out
from benchmarks.memory.intervals import write as write_residuals
from benchmarks.memory.predict import Answer, key_of, predict
from benchmarks.memory.readme import readme
from benchmarks.memory.rows import SUBSET, read_rows

from rankwise.estimate.memory import residual_of

RESULT = Path(bench.HERE) / "result.json"
PAIR = {"id", "source", "grade", "statistic", "method", "options", "measured", "predicted", "error", "explanation"}


def pair(error: float, grade: str = "A", statistic: str = "allocated", **more: Any) -> dict[str, Any]:
    """A row that measured 100 and was predicted `error` off."""
    return {
        "source": "one",
        "grade": grade,
        "statistic": statistic,
        "method": "lora",
        "note": "",
        "measured": 100.0,
        "low": 100.0,
        "high": 100.0,
        "predicted": 100.0 * (1 + error),
        "error": error,
        "error_contract_only": None,
        **more,
    }


def test_the_error_of_a_bracket_is_to_its_nearer_end() -> None:
    assert error_of(110, 100, 100) == pytest.approx(0.1)
    assert error_of(90, 100, 120) == pytest.approx(-0.1)
    assert error_of(132, 100, 120) == pytest.approx(0.1)
    assert error_of(100, 100, 120) == error_of(111, 100, 120) == error_of(120, 100, 120) == 0


def test_quantiles_are_linear_between_ranks() -> None:
    assert quantile([4, 1, 3, 2], 0.5) == 2.5
    assert quantile([0, 10], 0.95) == pytest.approx(9.5)
    assert quantile([7], 0.95) == 7
    with pytest.raises(ValueError, match="nothing"):
        quantile([], 0.5)


def test_a_summary_by_hand() -> None:
    assert summary([-0.02, 0.01, 0.04]) == {
        "rows": 3,
        "median": pytest.approx(0.02),
        "p95": pytest.approx(0.038),
        "under": -0.02,
        "over": 0.04,
    }
    assert summary([0.01])["under"] == 0


def test_metrics_by_hand() -> None:
    rows = [
        pair(0.01, error_contract_only=0.2),
        pair(-0.03),
        pair(0.5, note=f"{CAP}; other"),
        pair(0.07, statistic="reserved"),
        pair(-0.2, grade="B"),
        pair(9.0, grade="C"),
    ]
    found = metrics(rows)
    assert found["rows_a"] == found["rows_allocated_a"] == 3
    assert found["median_abs_error_allocated_a"] == pytest.approx(0.03)
    assert found["p95_abs_error_allocated_a"] == pytest.approx(0.03 + 0.9 * 0.47)
    assert found["worst_under_allocated_a"] == -0.03
    assert found["median_abs_error_allocated_a_contract_only"] == 0.2
    assert found["rows_a_contract_only"] == 1
    assert found["median_abs_error_allocated_a_stated_length"] == pytest.approx(0.02)
    assert found["median_abs_error_reserved_a"] == 0.07
    assert found["worst_under_allocated_b"] == -0.2
    assert not any("_c" in name.removesuffix("_contract_only")[-2:] for name in found)


def test_an_interval_rests_on_stated_lengths_and_pools_small_families() -> None:
    many = [pair(0.0, measured=100.0 + at) for at in range(ENOUGH + 1)]
    few = [pair(0.0, method="full", measured=200.0)]
    caps = [pair(0.0, measured=900.0, note=CAP)]
    found = intervals(exact([*many, *few, *caps, pair(0.0, grade="B", measured=900.0)]))
    assert set(found) == {("allocated", "adapter"), ("allocated", "any")}
    low, high = 0.025 * ENOUGH / 100, 0.975 * ENOUGH / 100
    assert found["allocated", "adapter"] == (pytest.approx(low), pytest.approx(high), ENOUGH + 1)
    assert found["allocated", "any"][2] == ENOUGH + 2


def test_grade_b_counts_where_grade_a_is_too_small() -> None:
    assert len(exact([pair(0.0), pair(0.0, grade="B"), pair(0.0, grade="C")])) == 2


def test_a_source_is_tested_against_the_intervals_of_the_others() -> None:
    others = [pair(0.0, measured=100.0 + at, source="one") for at in range(11)]
    tested = [pair(0.0, measured=m, low=m, high=m, source="two") for m in (105.0, 150.0)]
    found = {row["source"]: row for row in left_out([*others, *tested])}
    assert (found["two"]["rows"], found["two"]["covered"], found["two"]["rows_of_others"]) == (2, 1, 11)
    assert found["two"]["low"] == pytest.approx(0.0025)
    assert found["two"]["high"] == pytest.approx(0.0975)


def test_residuals_are_written_and_other_devices_kept(tmp_path: Path) -> None:
    import tomllib

    path = tmp_path / "residuals.toml"
    path.write_text('# head\n\n[[residual]]\ndevice = "cpu"\nstatistic = "device"\nfamily = "any"\nlow = -0.5\n')
    write_residuals([pair(0.0, statistic="device", measured=90.0 + at) for at in range(21)], "table", path)
    rows = tomllib.loads(path.read_text())["residual"]
    assert path.read_text().startswith("# head")
    assert [(row["device"], row["family"]) for row in rows] == [("gpu", "adapter"), ("gpu", "any"), ("cpu", "any")]
    assert (rows[0]["low"], rows[0]["high"], rows[0]["n"]) == (-0.095, 0.095, 21)


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_every_method_has_an_interval(kind: str, method: str) -> None:
    residual = residual_of(kind, method)
    assert residual["low"] < residual["high"]
    assert residual["source"]


def test_a_stranger_says_neither_stack_nor_autocast() -> None:
    assert bench.contract_only({"model": "m", "stack": "4.45", "autocast": "bf16"}) == {"model": "m"}


def test_a_refusal_is_counted_and_not_compared() -> None:
    rows = [row for row in read_rows(SUBSET) if row.options is not None and row.outcome == "ok"][:2]
    good = Answer({"allocated": 10, "reserved": 20, "device": 30}, fits=True, capacity=40)
    answers = {key_of(options): Answer({}, said="no") for options in bench.wanted(rows)}
    answers |= {key_of(options): good for options in bench.wanted(rows[:1])}
    result = bench.result_of(rows, answers, {}, "two rows")
    assert [row["id"] for row in result["rows"]] == [rows[0].id]
    assert [(row["id"], row["reason"]) for row in result["refused"]] == [(rows[1].id, "no")]


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    return found


def test_the_page_is_what_the_result_says(result: dict[str, Any]) -> None:
    assert readme(result) == RESULT.with_name("README.md").read_text(encoding="utf-8")


def test_the_metrics_follow_from_the_raw_pairs(result: dict[str, Any]) -> None:
    assert len(result["rows"]) > 300
    assert all(row.keys() >= PAIR for row in result["rows"])
    assert len({row["id"] for row in result["rows"]}) == len(result["rows"])
    for row in result["rows"]:
        assert row["error"] == pytest.approx(error_of(row["predicted"], row["low"], row["high"])), row["id"]
    assert metrics(result["rows"]) == pytest.approx(result["metrics"])
    assert {"machine", "versions", "commit", "unmapped", "refused"} <= result.keys()
    assert all(row["reason"] for row in [*result["unmapped"], *result["refused"]])


def test_the_committed_predictions_are_what_the_code_says_today(result: dict[str, Any]) -> None:
    committed = {row["id"]: row for row in result["rows"]}
    rows = [row for row in read_rows(SUBSET) if row.id in committed and row.grade == "A"]
    chosen = [row for row in rows if row.statistic in ("allocated", "reserved")][::4]
    assert len(chosen) >= 6
    answers = predict([row.options or {} for row in chosen], workers=1)
    for row in chosen:
        said = answers[key_of(row.options or {})].peaks[row.statistic]
        assert said == pytest.approx(committed[row.id]["predicted"], rel=1e-3), row.id
