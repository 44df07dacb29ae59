"""Jobs that cannot be meant, through the command line: one clear error, exit code 2, and 3 where nothing can run."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rankwise.cli import app
from rankwise.store import Run

DESCRIBED = ["--model", "llama-2-13b", "--goal", "task", "--gpu", "A100-80GB", "--examples", "100"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", *DESCRIBED, *arguments, "--json"])


def error(*arguments: str) -> dict[str, Any]:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    found: dict[str, Any] = json.loads(result.stdout)["error"]
    assert found["kind"] == "JobError" and found["what"] and "Traceback" not in result.output
    return found


REFUSED = {
    "no GPU": (["--gpus", "0"], "hardware.count is 0", ""),
    "no tenant": (["--variants", "0"], "variants is 0", ""),
    "a tenant short": (["--variants", "-3"], "variants is -3", ""),
    "a typo in goal": (["--goal", "taks"], "goal is 'taks'", "did you mean task?"),
    "a typo in method": (["--method", "qlorra"], "there is no method 'qlorra'", "did you mean qlora?"),
    "no budget": (["--budget-usd", "0"], "budget.usd is 0.0", ""),
    "no rank": (["--method", "lora", "--rank", "0"], "method.r is 0", ""),
    "a rank beyond its matrix": (["--method", "qlora", "--rank", "6000"], "method.r is 6000", ""),
    "targets that it lacks": (["--method", "lora", "--targets", "c_attn"], "no linear layer of llama-2-13b", ""),
    "no share": (["--validation", "1.5"], "data.validation is 1.5", ""),
    "described and given": (["--train", "rows.jsonl"], "", ""),
    "no rows": (["--examples", "0"], "data.examples is 0", ""),
    "a loss below nothing": (["--base-loss", "-1"], "data.base_loss is -1.0", ""),
    "an unknown GPU": (["--gpu", "A1000-80TB"], "A1000-80TB", ""),
    "an option of no method": (["--rank", "8"], "method", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_job_that_cannot_be_meant_is_one_clear_error(name: str) -> None:
    arguments, what, fix = REFUSED[name]
    if name == "an unknown GPU":
        result = run(*arguments)
        found = json.loads(result.stdout)["error"]
        assert result.exit_code == 2 and found["kind"] == "UnknownGpuError" and found["expected"]
    else:
        found = error(*arguments)
    assert what in found["what"] and fix in found["fix"]


def test_nothing_that_can_run_is_exit_three_with_the_cheapest_that_could(here: Path) -> None:
    result = run("--gpu", "T4", "--method", "full", "--out", "out")
    assert result.exit_code == 3, result.output
    told = json.loads(result.stdout)
    assert told["verdict"]["method"] == "none" and told["offers"]
    usd = [offer["usd"] for offer in told["offers"]]
    assert usd == sorted(usd) and all(o["peak_device"] <= o["capacity"] for o in told["offers"])
    assert Run.open(here / "out").plan().offers
