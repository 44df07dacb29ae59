"""The Tab key, asked as the shells ask: bash through its own completion function, zsh and fish by their protocol."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rankwise.cli import completing
from rankwise.options import JOB_OPTIONS, gpu_names, model_names
from rankwise.serve.registry import Registry
from rankwise.store import Run
from tests import builders
from tests.serve.databases import added

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a job, two runs and a comparison; `rankwise` is on the path."""
    work = tmp_path / "work"
    (work / "comparisons" / "duel").mkdir(parents=True)
    (work / "comparisons" / "duel" / "asked.json").write_text("{}")
    (work / "job.yaml").write_text("goal: task\n")
    plan = builders.plan()
    for name in ("first", "second"):
        Run(work / "runs" / name).begin(plan)
    program = tmp_path / "bin" / "rankwise"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom rankwise.__main__ import main\nmain()\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.chdir(work)
    return work


BASH = """
eval "$(_RANKWISE_COMPLETE=source_bash rankwise)"
complete -p rankwise
tab() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _rankwise_completion rankwise; echo "== ${COMPREPLY[*]}"; }
tab rankwise di
tab rankwise show ''
tab rankwise train run
tab rankwise plan job.yaml --goal k
tab rankwise estimate --gpu T4
tab rankwise plan nothing-of-that-name
"""


def test_bash_completes_commands_runs_and_values(here: Path) -> None:
    done = subprocess.run(["bash", "--norc", "-c", BASH], capture_output=True, text=True, check=False)
    installed, *answers = done.stdout.splitlines()
    assert "-o default" in installed and "_rankwise_completion" in installed, done.stderr
    assert [answer.removeprefix("== ").split() for answer in answers] == [
        ["diagnose"],
        ["second", "first", "duel"],
        ["runs/second", "runs/first", "runs/second/plan.json", "runs/first/plan.json"],
        ["knowledge"],
        [name for name in gpu_names() if name.startswith("T4")],
        [],  # and bash offers files
    ]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("shell", "expected"),
    [("zsh", """_arguments '*: :(("first"))'"""), ("fish", "first")],
)
def test_other_shells_are_answered_in_their_own_words(here: Path, shell: str, expected: str) -> None:
    asked = {
        "_RANKWISE_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "rankwise merge fi",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(["rankwise"], env=os.environ | asked, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (expected, "")


def test_paths_are_offered_where_a_path_is_typed(here: Path) -> None:
    assert completing.run_folders("runs/f") == ["runs/second", "runs/first"]  # typer keeps what fits
    assert completing.compared_or_run("comparisons/") == ["second", "first", "comparisons/duel"]
    assert completing.job_files("") == ["job.yaml"]
    assert "embedded" in completing.runs_or_models("") and "first" in completing.runs_or_models("")


TENANTS = """
eval "$(_RANKWISE_COMPLETE=source_bash rankwise)"
tab() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _rankwise_completion rankwise; echo "== ${COMPREPLY[*]}"; }
tab rankwise tenants show ''
tab rankwise tenants promote --registry other.sqlite ''
tab rankwise tenants remove --registry none.sqlite ''
tab rankwise tenants key --registry mysql://there ''
"""


def test_tenants_are_known_and_no_registry_is_made(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKWISE_REGISTRY", str(here / "registry.sqlite"))
    for file, names in (("registry", ("clinic", "shop")), ("other", ("harbour",))):
        known = Registry(str(here / f"{file}.sqlite"))
        for name in names:
            added(known, name)
        known.close()
    done = subprocess.run(["bash", "--norc", "-c", TENANTS], capture_output=True, text=True, check=False)
    answers = [answer.removeprefix("== ").split() for answer in done.stdout.splitlines()]
    assert (answers, done.stderr) == ([["clinic", "shop"], ["harbour"], [], []], "")
    assert not (here / "none.sqlite").exists()


def test_values_that_the_job_lists_are_known() -> None:
    from rankwise.options import _choices_of

    assert _choices_of("goal") == ("instruction", "knowledge", "task", "unsure")
    assert _choices_of("forgetting.action") == ("warn", "lower_lr", "stop", "rollback")
    assert _choices_of("data.train") == ()
    for key, *_ in JOB_OPTIONS.values():
        _choices_of(key)  # every key is found in the record
    assert "llama-3-8b" in model_names() and "embedded" in model_names()
