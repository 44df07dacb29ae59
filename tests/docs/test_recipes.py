"""docs/recipes: each page shows its job, and the words that it quotes are those of the plan."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from rankwise.cli import app
from rankwise.jobfile import read_job
from rankwise.methods import METHODS
from tests.docs.blocks import ROOT, blocks, calls, name

PAGES = sorted((ROOT / "docs" / "recipes").glob("*.md"))
JOBS = ROOT / "examples" / "recipes" / "jobs"


def job_of(page: Path) -> Path:
    return JOBS / f"{page.stem}.yaml"


def quotes(page: Path) -> list[str]:
    """What a page quotes, in the pieces between `…`, white space as one space."""
    lines = [line for block in blocks(page) if block.kind == "verdict" for line in block.text.splitlines()]
    pieces = [" ".join(piece.split()) for line in lines for piece in line.split("…")]
    return [piece for piece in pieces if piece]


def planned(page: Path, out: Path) -> str:
    result = CliRunner().invoke(app, ["plan", str(job_of(page)), "--out", str(out)])
    assert result.exit_code == 0, result.output[-3000:]
    return " ".join(result.output.split())


def test_there_is_a_page_for_each_job() -> None:
    assert [page.stem for page in PAGES] == sorted(path.stem for path in JOBS.glob("*.yaml"))
    assert len(PAGES) == 7


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_shows_its_job_and_the_call_that_plans_it(page: Path) -> None:
    job = read_job(job_of(page), {}, METHODS)
    (shown,) = (block for block in blocks(page) if block.kind == "yaml")
    assert shown.text == job_of(page).read_text(encoding="utf-8")
    (command,) = (call for block in blocks(page) if block.language == "bash" for call in calls(block))
    assert command == ["rankwise", "plan", f"examples/recipes/jobs/{page.stem}.yaml"]
    assert job.hardware.gpu and job.model == yaml.safe_load(shown.text)["model"]
    assert quotes(page)[0].startswith("Train ")


@pytest.mark.prove
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_quotes_its_plan(page: Path, tmp_path: Path) -> None:
    said = planned(page, tmp_path)
    missing = [quote for quote in quotes(page) if quote not in said]
    assert not missing, said
    assert len(quotes(page)) >= 3
