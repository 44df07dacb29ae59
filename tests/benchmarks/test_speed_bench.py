"""The committed timings are what the page says, and a round measures what it names."""

import json
from pathlib import Path
from statistics import median

import pytest
from benchmarks.speed.bench import HERE, one_round, readme


def test_the_page_is_made_of_the_committed_result() -> None:
    result = json.loads((HERE / "result.json").read_text())
    assert (HERE / "README.md").read_text() == readme(result)
    assert len(result["rounds"]) >= 5 and result["candidates"] >= 12
    beyond = median(r["cold"] - r["imports"] for r in result["rounds"])
    assert result["medians"]["beyond"] == pytest.approx(beyond)
    assert not result["commit"].endswith("-dirty")


def test_a_round_plans_twice(tmp_path: Path) -> None:
    found = one_round(tmp_path)
    assert found["candidates"] >= 12
    assert 0 < found["warm"] < found["cold"]
    assert list((tmp_path / "cache" / "traces").iterdir())
