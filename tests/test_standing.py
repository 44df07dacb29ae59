"""`rankwise` alone: where a folder stands, and a next command that is really the next one."""

import os
import shlex
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rankwise import api
from rankwise.api.standing import SMALLEST_JOB
from rankwise.cli import app
from rankwise.jobfile import read_job
from rankwise.methods import METHODS
from rankwise.store import Run
from tests import builders
from tests.training import toy_job, toy_model


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path.parent / "cache"))
    return tmp_path


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def made(folder: Path, *events: object, age: float = 0, **job: object) -> Run:
    """A run folder with these events; `age` seconds old."""
    run = Run(folder)
    run.begin(builders.plan(builders.job(**job)))
    for event in events:
        run.append(event)  # type: ignore[arg-type]
    for path in (run.plan_path, run.events_path):
        if path.is_file():
            at = path.stat().st_mtime - age
            os.utime(path, (at, at))
    return run


def states(road: api.Road) -> dict[str, str]:
    return {stop.name: stop.state for stop in road.stops}


def test_what_it_says_is_typed_until_the_end_of_the_road(here: Path) -> None:
    """A folder with a job in it, and nobody who knows a command but the one that is told."""
    toy_job(here, toy_model(here / "model"))
    seen = []
    for _ in range(6):
        line = shlex.split(api.road().next.command)
        assert line[0] == "rankwise"
        seen.append(line[1])
        if line[1] == "tenants":
            break
        done = typed(*line[1:])
        assert done.exit_code == 0, (line, done.output, done.exception)
    assert seen == ["plan", "train", "eval", "merge", "export", "tenants"]
    assert set(states(api.road()).values()) == {"done", "next"}
    first = api.road().others[0].command
    assert typed(*shlex.split(first)[1:]).exit_code == 0 and first.startswith("rankwise show")


def test_an_empty_folder_has_a_first_step_that_works(here: Path) -> None:
    road = api.road()
    assert states(road)["job"] == "next" and not road.damaged
    assert list(here.iterdir()) == []  # looking leaves nothing behind
    said = typed().output
    assert road.next.command in said and "Job -> plan -> train" in said and typed().exit_code == 0


@pytest.mark.embedded
def test_the_first_step_of_an_empty_folder_is_followed_by_another(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANKWISE_CACHE")  # where the embedded model lies already, if it was ever used here
    plan = typed(*shlex.split(api.road().next.command)[1:])
    assert plan.exit_code == 0, plan.output
    assert api.road().next.command.startswith("rankwise check ROWS --model embedded")  # it described its data


def test_the_job_that_it_shows_is_a_job(here: Path) -> None:
    (here / "rows.jsonl").write_text("")
    (here / "job.yaml").write_text(SMALLEST_JOB)
    assert read_job(here / "job.yaml", {}, METHODS).goal == "instruction"


def test_rows_or_another_tools_file_are_seen(here: Path) -> None:
    (here / "my rows.jsonl").write_text("{}\n")
    assert api.road().next.command == "rankwise check 'my rows.jsonl' --model embedded"
    (here / "axolotl.yml").write_text("base_model: x\nadapter: lora\n")
    assert api.road().next.command == "rankwise plan --from axolotl.yml"
    (here / "broken.yaml").write_bytes(b"goal: \xff\n")
    (here / "mine.yaml").write_text("goal: task\nmodel: [half-written\n")
    assert api.road().next.command == "rankwise plan mine.yaml"


def test_a_job_that_changed_is_planned_again(here: Path) -> None:
    made(here / "runs" / "a", age=100)
    assert api.road().next.command == "rankwise train runs/a/plan.json"
    (here / "job.yaml").write_text("goal: task\nmodel: embedded\n")
    road = api.road()
    assert road.next.command == "rankwise plan job.yaml" and "changed" in road.next.why
    os.utime(here / "job.yaml", (0, 0))
    assert api.road().next.command == "rankwise train runs/a/plan.json"


@pytest.mark.parametrize(
    ("last", "said"), [(builders.stopped(10), "stopped at step 10"), (builders.step(4), "killed at step 4"),
                       (builders.failed(), "failed at step 3")]
)  # fmt: skip
def test_what_can_be_resumed_comes_first(here: Path, last: object, said: str) -> None:
    steps = [builders.started(), *[builders.step(n) for n in (1, 2, 3)], last]
    made(here / "runs" / "old", *steps, age=100)
    made(here / "runs" / "newer", *builders.whole_run(), variants=3)  # another job
    (here / "job.yaml").write_text("goal: task\nmodel: embedded\n")
    road = api.road()
    assert road.next.command == "rankwise train runs/old --resume"
    assert said in road.next.why and states(road)["train"] == "next"


def test_a_stopped_run_whose_job_was_trained_again_is_not_resumed(here: Path) -> None:
    made(here / "runs" / "old", builders.started(), builders.step(1), builders.stopped(1), age=100)
    made(here / "runs" / "new", *builders.whole_run())
    assert api.road().next.command == "rankwise eval runs/new"


def test_a_run_that_trains_is_followed(here: Path) -> None:
    run = made(here / "runs" / "a", builders.started(), builders.step(1))
    made(here / "runs" / "b", builders.started(), builders.stopped(1), variants=2)
    with run.lock():
        road = api.road()
    assert road.next.command == "rankwise watch runs/a --live"
    assert [step.command for step in road.others] == ["rankwise train runs/b --resume"]


def test_a_run_stands_in_its_own_folder_too(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(here / "a run", builders.started(), builders.stopped(1))
    assert api.road().next.command == "rankwise train 'a run' --resume"
    monkeypatch.chdir(here / "a run")
    assert api.road().next.command == "rankwise train . --resume"


def test_a_plan_for_elsewhere_is_launched(here: Path) -> None:
    plan = builders.plan(builders.job(), builders.facts(device=builders.a100(available_bytes=None)))
    Run(here / "runs" / "a").begin(plan)
    assert api.road().next.command == "rankwise launch runs/a --on TARGET"


def test_one_damaged_run_does_not_hide_the_others(here: Path) -> None:
    made(here / "runs" / "good", *builders.whole_run())
    for name, file in (("a", "plan.json"), ("b", "evidence.json"), ("c", "events.jsonl")):
        made(here / "runs" / name, builders.started())
        (here / "runs" / name / file).write_text("{\n")
    road = api.road()
    assert road.next.command == "rankwise eval runs/good"
    assert len(road.damaged) == 3 and all(any(f"runs/{n}/" in d for d in road.damaged) for n in "abc")
    assert "runs/b/evidence.json is damaged" in typed().output and typed().exit_code == 0


def test_a_comparison_that_is_not_finished_is_named(here: Path) -> None:
    (here / "comparisons" / "x").mkdir(parents=True)
    (here / "comparisons" / "x" / "asked.json").write_text("{}")
    made(here / "runs" / "a")
    assert "rankwise show comparisons/x" in [step.command for step in api.road().others]
