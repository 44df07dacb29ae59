"""Imports run one way, and thinking needs no torch: the contracts, and what a fresh process really imports."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import write_job
from tests.tiny import tiny_llama

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "pyarrow", "huggingface_hub")
TELL = "\nimport json, sys; print('\\n' + json.dumps(sorted(set(sys.modules) & set(sys.argv[1].split(',')))))"


def fresh(code: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a new interpreter; the last line printed is the list of heavy modules that it imported."""
    return subprocess.run(
        [sys.executable, "-c", code + TELL, ",".join(HEAVY)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | env,
        capture_output=True,
        text=True,
        check=False,
    )


def heavy(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    imported: list[str] = json.loads(done.stdout.splitlines()[-1])
    return imported


def test_the_contracts_of_the_house_hold() -> None:
    # In a process of its own: import-linter configures logging, and that silences every logger that already exists.
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout), done.stdout


@pytest.mark.parametrize("module", ["rankwise", "rankwise.cli", "rankwise.api", "rankwise.records", "rankwise.store"])
def test_importing_it_imports_nothing_heavy(module: str, tmp_path: Path) -> None:
    assert heavy(fresh(f"import {module}", tmp_path)) == []


RUN = """
from rankwise.cli import app
try:
    app({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize(
    "arguments",
    [[], ["--help"], ["plan", "--help"], ["estimate", "--help"], ["runs"], ["models"], ["models", "gpt2"], ["gpus"]],
)
def test_help_and_listing_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert heavy(fresh(RUN.format(arguments=arguments), tmp_path)) == []


def test_a_plan_whose_steps_are_remembered_imports_nothing_heavy(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "tiny")
    job = write_job(tmp_path, "goal: task\nmodel: tiny\ndata: {train: rows.jsonl}\nhardware: cpu\n")
    code = RUN.format(arguments=["plan", str(job), "--out", str(tmp_path / "out")])
    _, remembered = (heavy(fresh(code, tmp_path, RANKWISE_CACHE=str(tmp_path / "cache"))) for _ in range(2))
    assert remembered == [] and list((tmp_path / "cache" / "traces").iterdir())
    assert (tmp_path / "out" / "plan.json").is_file() and (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "cache" / "matmul.json").is_file()
    code = RUN.format(arguments=["show", str(tmp_path / "out"), "--json"])
    assert heavy(fresh(code, tmp_path, RANKWISE_CACHE=str(tmp_path / "cache"))) == []


@pytest.mark.parametrize("arguments", [["--help"], []], ids=["help", "the road"])
def test_help_loads_little_beside_what_it_is_made_of(arguments: list[str], tmp_path: Path) -> None:
    """Processor time, side by side, since machines differ and do other things: eight times these three imports is
    half a second or so.
    """

    def seconds(*arguments: str) -> float:
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            check=True,
        )
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime

    rounds = [(seconds("-m", "rankwise", *arguments), seconds("-c", "import typer, pydantic, rich")) for _ in range(5)]
    assert min(help_ for help_, _ in rounds) < 8 * min(imports for _, imports in rounds), rounds
