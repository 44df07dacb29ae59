"""A finished comparison, written to its file, moves the next plan on the same base."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rankwise import api
from rankwise.cli import app
from rankwise.compare.conclude import conclude
from rankwise.compare.evidence import VARIABLE, remember
from rankwise.files import read_record
from rankwise.records import Allowance, Arm, Bakeoff, Plan, Trial
from tests.compare.test_conclude import runs
from tests.training import toy_job, toy_model

RATES = (1e-4, 3e-4, 9e-4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def job(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A style job that forces neither a method nor a rate."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "comparisons.jsonl"))
    path = toy_job(tmp_path / "work", model, train={"learning_rate": None})
    return toy_free(path)


def toy_free(path: Path) -> Path:
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("method:")) + "\n")
    return path


def plan(job: Path, *options: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["plan", str(job), "--out", str(job.parent / "planned"), "--json", *options])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def compared(job: Path, trials: Sequence[Trial], base_hash: str | None = None) -> None:
    """Write what trials of LoRA and full fine-tuning found of this job to the file."""
    planned = {method: api.plan(job, method=method) for method in ("lora", "full")}
    lora = planned["lora"]
    allowances = tuple(
        Allowance(
            arm=Arm(name=name, kind="trained", method=planned[method].job.method),
            config=planned[method].verdict.config,
            step_flops=1e9,
            step_seconds=0.1,
            steps=20,
            sweep_steps=5,
            learning_rates=RATES,
            flops=1e11,
            training_seconds=3.0,
            evaluation_seconds=1.0,
            interval=None,
            peak_memory=None,
            stored_bytes=None,
        )
        for name, method in (("lora:r=8", "lora"), ("full", "full"))
    )
    bakeoff = Bakeoff(
        job=lora.job.model_copy(update={"method": None}),
        job_hash=lora.job_hash,
        base_hash=base_hash or lora.base_hash,
        unit="minutes",
        budget=8.0,
        seeds=(0, 1, 2),
        allowances=allowances,
        detectable=(),
        notes=(),
    )
    assert remember(bakeoff, conclude(bakeoff, trials), job.parent / "compare")


def of(style: dict[str, float]) -> list[Trial]:
    return [t for arm, level in style.items() for t in runs(arm, level, 0.3, rate=3e-4, tried=RATES)]


def test_a_told_difference_moves_the_next_plan(job: Path) -> None:
    before = plan(job)
    assert before["verdict"]["method"] == "lora"
    assert "own_comparison" not in {r["rule"] for r in before["reasons"]}
    compared(job, of({"lora:r=8": 0.4, "full": 0.95}))
    after = plan(job)
    assert after["verdict"]["method"] == "full"
    assert after["verdict"]["config"]["learning_rate"] == 3e-4
    cited = {r["rule"]: r for r in after["reasons"]}
    assert cited["own_comparison"]["number"].startswith("full over lora:r=8 on style: +")
    assert str(job.parent / "compare") in cited["own_comparison"]["text"]
    assert "3 rates" in cited["learning_rate"]["number"]
    kept = read_record(job.parent / "planned" / "plan.json", Plan)
    assert kept.facts.past is not None and kept.facts.past.here[0].contrasts[0].answer == "worse"
    assert "own_comparison" in (job.parent / "planned" / "report.html").read_text()


def test_a_forced_method_stays_and_is_warned_of(job: Path) -> None:
    compared(job, of({"lora:r=8": 0.4, "full": 0.95}))
    forced = plan(job, "--method", "lora")
    assert forced["verdict"]["method"] == "lora"
    assert any("your comparison of" in w for w in forced["warnings"])


def test_cannot_tell_gives_its_rate_and_no_more(job: Path) -> None:
    compared(job, of({"lora:r=8": 0.9, "full": 0.9}))
    found = plan(job)
    assert (found["verdict"]["method"], found["verdict"]["config"]["learning_rate"]) == ("lora", 3e-4)
    cited = next(r for r in found["reasons"] if r["rule"] == "own_comparison")
    assert "cannot tell" in cited["text"] and cited["number"].endswith("cannot tell")


def test_another_base_is_ignored_and_said(job: Path) -> None:
    before = plan(job)
    compared(job, of({"lora:r=8": 0.4, "full": 0.95}), base_hash="d" * 64)
    after = plan(job)
    assert after["verdict"] == before["verdict"]
    assert after["reasons"] == before["reasons"]
    said = [w for w in after["warnings"] if w not in before["warnings"]]
    assert len(said) == 1 and "made on other base weights" in said[0]
