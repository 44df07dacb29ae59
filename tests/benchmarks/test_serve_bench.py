"""The page is made from the raw rows, and the metrics are ratios within a round."""

from typing import Any

import pytest
from benchmarks.serve.bench import merged
from benchmarks.serve.engine import metrics
from benchmarks.serve.readme import ARMS, readme

RATES = {"base": 100.0, "mixed": 70.0, "single": 20.0, "peft": 50.0, "mixed_uneven": 60.0, "peft_uneven": 30.0}


def rows() -> list[dict[str, Any]]:
    """Three rounds; in each the machine is as many times slower."""
    found: list[dict[str, Any]] = [{"round": 0, "arm": "load", "seconds": 0.5}]
    for number in (1, 2, 3):
        for arm, rate in RATES.items():
            found.append({"round": number, "arm": arm, "tokens": 100, "seconds": number * 100 / rate})
    return found


def test_ratios_are_of_one_round() -> None:
    found = metrics(rows())
    assert found["mixed_vs_base"] == pytest.approx(0.7)
    assert found["mixed_vs_single"] == pytest.approx(3.5)
    assert found["mixed_vs_peft"] == pytest.approx(1.4)
    assert found["mixed_vs_peft_uneven"] == pytest.approx(2.0)


def test_the_page_says_what_is_missed() -> None:
    page = readme(merged({"engine": {"metrics": metrics(rows()), "rows": rows()}}))
    assert "0.70 **missed**" in page
    assert page.count("missed") == 1
    assert all(what in page for what in ARMS.values())
