"""The examples of docs/python.md and of the README, run as they stand, on a tiny model."""

from pathlib import Path
from typing import Any

import pytest

from rankwise.records import Estimate, Plan
from rankwise.store import Run
from tests.test_docs import ROOT, blocks


def run_blocks(page: str) -> dict[str, Any]:
    """Every python block of a page, one after the other in one namespace."""
    space: dict[str, Any] = {}
    found = [block for block in blocks(ROOT / page) if block.kind == "python"]
    for block in found:
        exec(compile(block.text, block.where, "exec"), space)
    assert found
    return space


def test_the_page_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = run_blocks("docs/python.md")
    said = capsys.readouterr()
    assert isinstance(space["plan"], Plan) and isinstance(space["run"], Run)
    assert space["forced"].verdict.method == "lora" and (here / "plans" / "forced" / "report.html").is_file()
    assert [type(e) for e in space["two"]] == [Estimate, Estimate]
    assert len(space["losses"]) == 6 and space["second"].plan().job.train.seed == 1
    assert space["proof"].passed and space["artifact"].kind == "adapter+merged" and not space["missed"]
    assert (here / "clinic-adapter" / "adapter_model.safetensors").is_file()
    assert space["known"] == ("finished", ["runs/first", "runs/second"])
    assert space["page"].is_file() and (space["folder"] / "config.json").is_file()
    assert "there is no option metod | did you mean method?" in said.out
    assert space["plan"].verdict.candidate in said.out and "step 6" in said.err


def test_the_readme_runs(here: Path) -> None:
    space = run_blocks("README.md")
    assert space["verification"].passed and space["run"].state() == "finished"
