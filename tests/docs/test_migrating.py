"""docs/migrating.md, line by line: a key of another tool, read as that tool's configuration, is the key of ours."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankwise.observe.recipes import read_recipe

PAGE = Path(__file__).resolve().parents[2] / "docs" / "migrating.md"
# What a configuration of the tool needs beside the line.
BASES: dict[str, dict[str, Any]] = {
    "Axolotl": {"base_model": "llama-3-8b", "learning_rate": 1e-4},
    "LLaMA-Factory": {"model_name_or_path": "llama-3-8b", "stage": "sft", "do_train": True, "dataset": "x"},
    "TRL": {"model_name_or_path": "llama-3-8b", "dataset_name": "a/b"},
}
TOOLS = {"Axolotl": "axolotl", "LLaMA-Factory": "llama-factory", "TRL": "trl"}


def lines() -> list[tuple[str, str, str]]:
    """(tool, what stands in its file, what stands in ours; empty where the page says it in words)."""
    found, tool = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            tool = line[3:].strip()
        elif tool in BASES and (row := re.fullmatch(r"\| `(.+?)` \|(?: `(.+?)`)? \|.*\|", line)):
            found.append((tool, row[1], row[2] or ""))
    return found


def holds(ours: Any, job: Any) -> bool:
    """Does a job say at least this?"""
    if isinstance(ours, dict):
        return isinstance(job, dict) and all(key in job and holds(value, job[key]) for key, value in ours.items())
    return bool(ours == job)


@pytest.mark.parametrize(("tool", "theirs", "ours"), lines())
def test_a_line_is_what_the_reader_makes_of_it(tool: str, theirs: str, ours: str, tmp_path: Path) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text(yaml.safe_dump(BASES[tool] | yaml.safe_load(theirs)))
    recipe = read_recipe(path, tool=TOOLS[tool])
    assert not [fault for fault in recipe.faults if "unknown" in fault.rule]
    assert holds(yaml.safe_load(ours or "{}"), recipe.job), recipe.job


def test_every_tool_has_its_table_and_a_wrong_line_would_be_noticed() -> None:
    found = lines()
    assert {tool for tool, *_ in found} == set(BASES)
    assert sum(bool(ours) for *_, ours in found) > 50
    assert not holds({"train": {"seed": 8}}, {"train": {"seed": 7}})
