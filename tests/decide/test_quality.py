"""Priors of quality: each candidate has one, from a row with a source, and it falls where the evidence says so."""

import tomllib
from importlib.resources import files
from typing import Any

import pytest

from rankwise.decide.configure import Rung
from rankwise.decide.quality import quality
from rankwise.decide.recipes import BY_NAME, RECIPES
from rankwise.decide.rulebook import evidence
from rankwise.records import QualityPrior
from tests.builders import job
from tests.decide import worlds

ROWS: list[dict[str, Any]] = tomllib.loads(files("rankwise.decide").joinpath("priors.toml").read_text())["prior"]
TRACED = [r.name for r in RECIPES if r.kind != "unkept"]
CODE = job(data={"examples": 9, "domain": "code"})


def prior(recipe: str, wanted: Any = None, rows: int = 240, rank: int | None = None) -> QualityPrior:
    wanted, facts = wanted or job(), worlds.world(rows=rows)
    return quality(wanted, facts, worlds.priced(recipe, wanted, facts, Rung(rank=rank)))


@pytest.mark.parametrize("recipe", TRACED)
@pytest.mark.parametrize("wanted", [job(), CODE], ids=["other", "code"])
@pytest.mark.parametrize("rows", [240, 2_000_000])
def test_every_recipe_has_a_prior_within_its_interval(recipe: str, wanted: Any, rows: int) -> None:
    found = prior(recipe, wanted, rows)
    low, high = found.interval
    assert 0 < low <= found.value <= high < 1.2 and low < high
    assert any(name in found.source for name in evidence())


def test_every_row_is_of_recipes_that_exist_and_of_sources_that_stand_in_the_evidence() -> None:
    for row in ROWS:
        assert set(row["recipes"]) <= set(BY_NAME) and row["low"] <= row["value"] <= row["high"]
        cited = [
            name
            for name in evidence()
            if f"{name}:" in row["evidence"]
            or f"{name}," in row["evidence"]
            or f"{name} " in row["evidence"]
            or row["evidence"].startswith(name)
        ]
        assert cited, row["evidence"]
    assert {name for row in ROWS for name in row["recipes"]} == set(TRACED)


def test_full_fine_tuning_is_the_measure_and_pure_bf16_lies_below_it() -> None:
    assert prior("full").value == prior("full-8bit").value == 1.0
    assert prior("full-bf16").value < 1.0


def test_code_gains_with_the_rank() -> None:
    found = [prior("lora", CODE, rank=r).value for r in (16, 64)]
    assert found[0] < found[1] < 1.0


def test_an_adapter_loses_where_its_capacity_is_spent() -> None:
    found = [prior("lora", rows=rows).value for rows in (240, 1_000_000, 100_000_000)]
    assert found == sorted(found, reverse=True) and found[0] > found[-1]


def test_rounded_weights_cost_a_little_and_say_so() -> None:
    plain, rounded = prior("lora"), prior("qlora")
    assert rounded.value < plain.value and rounded.interval[0] < plain.interval[0] and "E2" in rounded.source


def test_discouraged_methods_are_expected_to_lose() -> None:
    assert prior("prompt").interval[1] < prior("ia3").interval[1] < prior("lora").interval[0]
