"""Comparisons looked at from their folders alone: `report`, `show`, `runs`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rankwise import api
from rankwise.cli import app
from rankwise.files import write_record, write_text
from rankwise.store import job_yaml
from tests.report.bakeoffs import build_bakeoff, build_outcome, build_trials, whole_comparison


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(folder: Path, runs: int | None = None) -> Path:
    """The folder of a comparison with so many finished trials; None: all of them, and the outcome."""
    bakeoff, trials = build_bakeoff(), build_trials()
    write_text(folder / "job.yaml", job_yaml(bakeoff.job))
    write_record(folder / "comparison.json", bakeoff)
    for number, trial in enumerate(trials[:runs]):
        write_record(folder / "trials" / f"{number:02}.json", trial)
    if runs is None:
        write_record(folder / "outcome.json", build_outcome())
    return folder


def said(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_report_comes_from_the_folder_alone(here: Path) -> None:
    folder = made(Path("comparisons/a"))
    told = json.loads(said("report", "a", "--json"))
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert told == {"report": str(folder / "report.html"), "bytes": (folder / "report.html").stat().st_size}
    assert page == whole_comparison(folder="comparisons/a")
    assert f"Page: {(here / folder / 'report.html')}" in said("report", folder)


def test_a_comparison_that_goes_on_has_a_page_too(here: Path) -> None:
    folder = made(here / "x", 7)
    said("report", folder)
    assert "Not finished: 6 of 10 training runs done" in (folder / "report.html").read_text(encoding="utf-8")


def test_show_tells_the_verdict_the_results_and_the_contrasts(here: Path) -> None:
    made(Path("comparisons/a"))
    shown = json.loads(said("show", "a", "--json"))
    assert (shown["state"], shown["runs"], shown["planned_runs"]) == ("finished", 10, 10)
    assert shown["outcome"]["verdict"] == build_outcome().verdict and shown["report"] is None
    text = said("show", "comparisons/a")
    assert text.startswith("Of the arms that nobody beats on style, facts and task")
    assert "  - Style: Format (base 3 %" in text and "0.0001 !" in text
    assert "full - base" in text and "about 1,100" in text
    assert "Spent on training and answers: 9 min 10 s of 11 min (83 %)." in text


def test_show_tells_how_far_a_comparison_is(here: Path) -> None:
    folder = made(here / "x", 7)
    shown = json.loads(said("show", folder, "--json"))
    assert (shown["state"], shown["runs"], shown["outcome"]) == ("stopped", 6, None)
    text = said("show", folder)
    assert "Not finished: 6 of 10 training runs done." in text and "3 rates of 8 steps" in text
    assert json.loads(said("show", made(here / "y", 0), "--json"))["state"] == "planned"


def test_a_comparison_at_work_is_running(here: Path) -> None:
    folder = api.find_comparison(made(here / "x", 3))
    assert folder is not None
    with folder.lock():
        assert api.show_comparison(folder)["state"] == "running"
    assert api.show_comparison(folder)["state"] == "stopped"


def test_runs_lists_comparisons_beside_runs(here: Path) -> None:
    assert json.loads(said("runs", "--json")) == []
    made(Path("comparisons/a"))
    made(Path("runs/b"), 3)
    (here / "comparisons" / "c").mkdir()
    (here / "comparisons" / "c" / "comparison.json").write_text("{")
    found = {line["comparison"]: line["state"] for line in json.loads(said("runs", "--json"))}
    assert found == {"runs/b": "stopped", "comparisons/a": "finished", "comparisons/c": "damaged"}
    assert [line["comparison"] for line in json.loads(said("runs", "comparisons", "--json"))] == [
        "comparisons/a",
        "comparisons/c",
    ]
    text = said("runs")
    assert "base, fewshot, lora:r=8, full" in text and "10 of 10" in text and "comparison.json is damaged" in text
