"""`rankwise check`, and training that refuses what it would refuse."""

import json
from pathlib import Path

import pytest

from tests.training import cli, toy_job, toy_model, toy_rows, write_jsonl


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model") / "m")


def test_sound_rows_exit_0_and_show_what_is_learned(tmp_path: Path, model: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", toy_rows(30))
    done = cli("check", rows, "--model", model, "--show", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("No fault found.")
    assert "in brackets: what is learned" in done.stdout and "<|im_end|>]" in done.stdout
    assert "Looked at: rows (30 rows)" in done.stdout and "Traceback" not in done.stderr


def test_faults_exit_3_with_their_lines_and_json_stays_clean(tmp_path: Path, model: Path) -> None:
    bad = [*toy_rows(30), {"messages": [{"role": "user", "content": "a"}]}]
    rows = write_jsonl(tmp_path / "rows.jsonl", bad)
    done = cli("check", rows, "--model", model)
    assert done.returncode == 3 and "1 fault: training on these rows is refused." in done.stdout
    assert f"{rows}:31" in done.stdout
    told = cli("check", rows, "--model", model, "--json")
    found = json.loads(told.stdout)
    assert told.returncode == 3 and [f["level"] for f in found["findings"]] == ["fault"]


def test_training_looks_first_and_leaves_nothing(tmp_path: Path, model: Path) -> None:
    rows = toy_rows(24)
    job = toy_job(tmp_path, model)
    held = write_jsonl(tmp_path / "held.jsonl", rows[:4])
    write_jsonl(tmp_path / "train.jsonl", rows)
    done = cli("train", job, "--validation", held, "--out", tmp_path / "R", "--json")
    assert done.returncode == 3, done.stderr
    error = json.loads(done.stdout)["error"]
    assert "held-out rows" in error["what"] and "rankwise check" in error["fix"]
    assert not (tmp_path / "R" / "plan.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [(["nothing.jsonl"], 2, "no such file"), (["rows.txt"], 1, "'.txt' files are not read"), ([], 2, "DATA")],
)
def test_bad_input_is_one_clear_error(tmp_path: Path, model: Path, arguments: list[str], code: int, words: str) -> None:
    (tmp_path / "rows.txt").write_text("x")
    done = cli("check", *arguments, "--model", model, cwd=tmp_path)
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr
