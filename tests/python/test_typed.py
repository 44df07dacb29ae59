"""The package says that it is typed, and a type checker believes it."""

import re
import subprocess
import sys
from pathlib import Path

import rankwise

ROOT = Path(__file__).parents[2]
SAMPLE = Path(__file__).parent / "sample.py"


def test_a_type_checker_finds_the_wrong_lines_and_no_other() -> None:
    assert (Path(rankwise.__file__).parent / "py.typed").is_file()
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(SAMPLE)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = [n for n, line in enumerate(SAMPLE.read_text().splitlines(), 1) if line.endswith("# WRONG")]
    found = [int(n) for n in re.findall(r"sample\.py:(\d+): error", done.stdout)]
    assert found == wrong, done.stdout + done.stderr
    assert "error" not in re.sub(r"sample\.py:.*", "", done.stdout)
