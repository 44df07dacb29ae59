"""What may be passed where a job or a run is meant, and keyword arguments that are the command line's options."""

import inspect
import re
import typing
from pathlib import Path

import pytest

import rankwise as rw
from rankwise.errors import JobError, RunError, UsageError
from rankwise.estimate.options import OPTIONS
from rankwise.options import JOB_OPTIONS
from rankwise.python import jobs
from rankwise.python.options import EstimateOptions, JobOptions
from rankwise.store import Run
from tests import builders

KINDS = {str: (str, Path), int: (int,), float: (float,), bool: (bool,)}


def names(flags: typing.Iterable[str]) -> dict[str, str]:
    return {flag.removeprefix("--").replace("-", "_"): flag for flag in flags}


def test_keyword_arguments_are_the_options_of_the_command_line() -> None:
    assert typing.get_type_hints(JobOptions).keys() == names(JOB_OPTIONS).keys()
    assert typing.get_type_hints(EstimateOptions).keys() == OPTIONS.keys()
    for name, flag in names(JOB_OPTIONS).items():
        kinds = typing.get_args(typing.get_type_hints(JobOptions)[name])
        assert set(kinds) & set(KINDS[JOB_OPTIONS[flag][1]]), name


def test_a_file_a_mapping_and_a_job_are_the_same_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = builders.write_job(tmp_path, "goal: task\nmodel: embedded\nname: one\ndata: {train: rows.jsonl}\n")
    told = {"goal": "task", "model": "embedded", "name": "one", "data": {"train": Path("rows.jsonl")}}
    from_file = jobs.job_of(path, {})
    assert jobs.job_of(told, {}) == from_file == jobs.job_of(str(path), {}) == jobs.job_of(from_file, {})
    described = {"model": "embedded", "goal": "task", "examples": 5, "tokens_per_example": 9}
    for job in (path, told, from_file):
        changed = jobs.job_of(job, {"gpus": 2, "rank": 4, "method": "lora", "validation": 0.25, "seed": None})
        assert (changed.hardware.count, changed.method.r, changed.data.validation) == (2, 4, 0.25)  # type: ignore[union-attr]
        assert (changed.name, changed.data.train) == ("one", from_file.data.train)
    assert jobs.job_of(None, described | {"hardware__count": 3}).hardware.count == 3


def test_short_forms_of_a_mapping_take_options(tmp_path: Path) -> None:
    told = {"goal": "task", "model": "embedded", "hardware": "cpu", "method": "lora", "data": {"examples": 5}}
    job = jobs.job_of(told | {"data": {"examples": 5, "tokens_per_example": 9}}, {"gpus": 2, "rank": 3})
    assert (job.hardware.gpu, job.hardware.count, job.method.name, job.method.r) == ("cpu", 2, "lora", 3)  # type: ignore[union-attr]


def test_what_cannot_be_meant_is_one_error() -> None:
    with pytest.raises(UsageError, match="no option metod") as caught:
        jobs.job_of("job.yaml", {"metod": "lora"})
    assert caught.value.fix == "did you mean method?"
    with pytest.raises(UsageError, match="nothing is said"):
        jobs.job_of(None, {"seed": None})
    with pytest.raises(JobError, match="modell"):
        jobs.job_of({"goal": "task", "modell": "x"}, {})
    with pytest.raises(RunError, match="no run nowhere"):
        jobs.run_of("nowhere")
    with pytest.raises(UsageError, match="one budget"):
        rw.compare("job.yaml", methods="base", budget_minutes=1, budget_cost=1)
    with pytest.raises(UsageError, match="unexpected keyword argument 'prt'"):
        rw.serve(prt=1)


VERBS = sorted(rw._MODULE)


def test_what_the_commands_do_is_reachable() -> None:
    from rankwise.cli import app

    commands = {command.name or "" for command in app.registered_commands}
    assert commands - {"eval", "ui"} <= set(VERBS) and "evaluate" in VERBS  # the app is a face beside this one


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_says_what_it_takes_and_raises(name: str) -> None:
    verb = rw._verb(name)
    doc = inspect.getdoc(verb) or ""
    assert doc
    if not verb.__module__.startswith("rankwise.python"):
        return  # documented where the command line calls it
    assert "return" in typing.get_type_hints(verb)
    assert re.search(r"Example: `.*rw\.", doc, re.DOTALL), name
    said = " ".join(doc.split())
    missing = [p for p in inspect.signature(verb).parameters if p not in said and p != "more"]
    assert not missing, f"{name}: {missing}"


def test_a_stage_is_called_as_its_verb() -> None:

    assert callable(rw.train) and "Carry a job" in (rw.train.__doc__ or "")
    with pytest.raises(RunError, match="no run nowhere"):
        rw.report("nowhere")
    from rankwise.train import loop

    assert loop.__name__ == "rankwise.train.loop"


def test_runs_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Run(Path("runs/a")).begin(builders.plan())
    assert rw.show("a")["state"] == "planned" and rw.open_run("a").folder == Path("runs/a")
    assert rw.report(rw.open_run("a")).is_file()
