"""`rankwise tables`: its JSON, its page, its terminal, and what it refuses."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rankwise.cli import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["tables", *map(str, arguments)])


@pytest.fixture(scope="module")
def cost(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    page = tmp_path_factory.mktemp("tables") / "tables.html"
    return run("--only", "cost", "--gpu", "A100 80GB", "--out", page, "--json"), page


def test_json_is_one_document_with_the_keys_of_the_contract(cost: tuple[Result, Path]) -> None:
    result, _ = cost
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert set(found) == {"memory", "cost", "claims", "assumptions"}
    assert found["memory"] == found["claims"] == []
    assert len(found["cost"]) == 3 * 3 * 2  # sizes, methods, lengths
    first = found["cost"][0]
    assert first["gpu"] == "A100-80GB" and first["said"]["text"] == "$150-300" and first["source"]
    assert "cost: 18 of 18" in result.stderr


def test_the_page_is_written_beside_it(cost: tuple[Result, Path]) -> None:
    _, page = cost
    html = page.read_text(encoding="utf-8")
    assert 'id="cost"' in html and 'id="memory"' not in html and "cost-data" in html


def test_the_terminal_shows_the_same_rows(cost: tuple[Result, Path]) -> None:
    plain = run("--only", "cost", "--gpu", "A100-80GB")
    assert plain.exit_code == 0
    row = json.loads(cost[0].stdout)["cost"][2]
    assert f"{row['times_lora']:.2f} x" in plain.stdout
    assert "the lesson said $15-30" in plain.stdout and "50,000 examples x 3 epochs" in plain.stdout


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--only", "everything"), "there is no part everything"),
        (("--gpu", "cpu"), "cpu is no GPU"),
        (("--gpu", "Voodoo 2"), "no such GPU is known"),
        (("--only", "cost", "--prices", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_bad_input_is_one_clear_error(arguments: tuple[str, ...], what: str) -> None:
    result = run(*arguments, "--json")
    assert result.exit_code == 2, result.output
    assert what in json.loads(result.stdout)["error"]["what"]


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("--only", "cost", "--gpu", "A100-80GB", "--out", tmp_path / "file" / "page.html", "--json")
    assert result.exit_code == 1
    assert "cannot be written" in json.loads(result.stdout)["error"]["what"]
