"""The table of what libraries refuse together: every entry is asked for, names what exists, and says its source."""

import ast
from pathlib import Path
from typing import get_args

import pytest

import rankwise.decide
from rankwise.decide.compatibility import Refusal, refusals, refused
from rankwise.decide.recipes import RECIPES
from rankwise.methods import METHODS, TUNERS
from rankwise.records.setup import Parallel

UNDER = "training under "  # each way of splitting is asked for by its name
every_refusal = pytest.mark.parametrize("entry", refusals(), ids=lambda e: f"{e.methods[0]} with {e.feature}")


def features_asked_for() -> set[str]:
    """The second argument of every call of `refused` in the package, and the choices of conditional ones."""
    found = set()
    for file in Path(rankwise.decide.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "refused":
                found |= {n.value for n in ast.walk(node.args[1]) if isinstance(n, ast.Constant)}
    if UNDER in found:
        found = (found - {UNDER}) | {f"{UNDER}{way}" for way in get_args(Parallel) if way not in ("none", "ddp")}
    return found


def test_every_feature_of_the_table_is_asked_for_and_every_question_has_an_entry() -> None:
    assert features_asked_for() == {entry.feature for entry in refusals()}


@every_refusal
def test_an_entry_names_methods_that_exist_and_says_why_and_who(entry: Refusal) -> None:
    assert set(entry.methods) <= set(TUNERS)
    assert len(entry.why) > 20 and not entry.why.endswith(".") and len(entry.source) > 10
    for method in entry.methods:
        assert refused(method, entry.feature) == entry


def test_nothing_is_known_against_what_is_not_listed() -> None:
    assert refused("lora", "gradient_checkpointing") is None and refused("prefix", "rain") is None


def test_a_tuner_that_cannot_recompute_is_in_the_table() -> None:
    """methods/ says of some tuners that they do not train with gradient checkpointing."""
    listed = {m for e in refusals() if e.feature == "gradient_checkpointing" for m in e.methods}
    assert {r.method for r in RECIPES if not TUNERS[r.method].checkpointing} <= listed


def test_our_list_of_methods_agrees_on_vllm() -> None:
    listed = {m for e in refusals() if e.feature == "vllm unmerged" for m in e.methods}
    assert set(METHODS) - listed == {"full", "lora", "qlora", "lora-8bit", "rslora", "pissa"} and listed <= set(METHODS)
