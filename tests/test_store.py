"""The run folder: one writer, states, an event file that survives any death."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rankwise.errors import RunError
from rankwise.files import write_text
from rankwise.records import Event
from rankwise.store import Run, list_runs, new_folder, replay
from tests import builders
from tests.builders import note, started, step, stopped, whole_run


def begun(folder: Path) -> Run:
    run = Run(folder)
    run.begin(builders.plan())
    return run


def wrote(run: Run, *events: Event) -> Run:
    for event in events:
        run.append(event)
    return run


# -- beginning a run -----------------------------------------------------------------------------


def test_a_begun_run_holds_job_facts_and_plan(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    assert sorted(p.name for p in run.folder.iterdir()) == ["facts.json", "job.yaml", "plan.json"]
    assert Run.open(tmp_path / "run").plan() == builders.plan() and run.facts() == builders.facts()
    assert run.name == "run" and run.artifact() is None


def test_a_folder_without_a_plan_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        Run.open(tmp_path)


@pytest.mark.parametrize("name", ["events.jsonl", "worker.log", "model", "notes.txt", "job.yaml"])
def test_a_folder_that_holds_something_else_is_in_use(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunError, match="already in use") as caught:
        begun(tmp_path)
    assert "--out" in caught.value.fix and (tmp_path / name).read_text() == "mine"


def test_a_planned_folder_may_be_planned_again(tmp_path: Path) -> None:
    run = begun(tmp_path)
    write_text(run.report_path, "page")
    with run.lock():
        pass
    begun(tmp_path)
    run.append(started())
    with pytest.raises(RunError, match="already in use"):
        begun(tmp_path)


def test_a_file_is_no_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(RunError, match="is a file"):
        begun(tmp_path / "run")


# -- one writer ----------------------------------------------------------------------------------

HOLD = (
    "import sys, time; from pathlib import Path; from rankwise.store import Run\n"
    "with Run(Path(sys.argv[1])).lock():\n"
    "    print('held', flush=True); time.sleep(600)\n"
)


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock of the run in tmp_path."""
    begun(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_kept_out_until_the_first_is_killed(tmp_path: Path, holder) -> None:
    run = Run(tmp_path)
    with pytest.raises(RunError, match="in use by another process"), run.lock():
        pass
    assert run.state() == "running"
    wrote(run, note(), started(), step(1))
    assert run.state() == "running"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with run.lock():
        pass
    assert run.state() == "killed"


def test_looking_at_a_run_never_keeps_its_writer_out(tmp_path: Path, holder) -> None:
    holder.kill()
    holder.wait()
    run = wrote(Run(tmp_path), started())
    for _ in range(20):
        assert run.state() == "killed"
        with run.lock():
            assert run.state() == "running"


# -- events --------------------------------------------------------------------------------------


def test_events_come_back_in_order(tmp_path: Path) -> None:
    run = wrote(begun(tmp_path), *whole_run())
    assert run.events() == run.raw_events() == whole_run()


def test_a_run_without_events_has_none(tmp_path: Path) -> None:
    assert begun(tmp_path).events() == []


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_last_line_cut_by_a_kill_is_forgotten_and_mended(tmp_path: Path, cut: int) -> None:
    run = wrote(begun(tmp_path), started(), step(1), note("zwölf Grüße €"))
    whole = run.events_path.read_bytes()
    run.events_path.write_bytes(whole[:-cut])
    kept = run.raw_events()
    assert kept[:2] == [started(), step(1)]
    run.mend_events()
    wrote(run, step(2))
    assert run.raw_events() == [started(), step(1), step(2)]


def test_a_line_cut_inside_a_character_is_forgotten_too(tmp_path: Path) -> None:
    run = wrote(begun(tmp_path), started(), note("€"))
    whole = run.events_path.read_bytes()
    run.events_path.write_bytes(whole[: whole.index("€".encode()) + 1])
    assert run.raw_events() == [started()] and run.state() == "killed"


def test_a_file_that_is_one_cut_line_is_empty_after_mending(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.events_path.write_text('{"event": "sta')
    assert run.raw_events() == [] and run.state() == "planned"
    run.mend_events()
    assert run.events_path.read_bytes() == b""


def test_mending_leaves_whole_lines_alone(tmp_path: Path) -> None:
    run = wrote(begun(tmp_path), *whole_run())
    before = run.events_path.read_bytes()
    run.mend_events()
    assert run.events_path.read_bytes() == before


def test_a_bad_line_in_the_middle_is_an_error_with_its_number(tmp_path: Path) -> None:
    run = wrote(begun(tmp_path), started(), step(1))
    lines = run.events_path.read_text().splitlines()
    run.events_path.write_text("\n".join([lines[0], "{}", lines[1]]) + "\n")
    with pytest.raises(RunError, match=r"events\.jsonl:2: not an event"):
        run.raw_events()


@pytest.mark.parametrize("sign", ["\u2028", "\x85", "\x0b", "\x1c"])
def test_signs_that_some_take_for_line_ends_stay_inside_their_event(tmp_path: Path, sign: str) -> None:
    run = wrote(begun(tmp_path), note(f"row{sign}7"), step(1))
    assert run.raw_events() == [note(f"row{sign}7"), step(1)]


# -- resuming ------------------------------------------------------------------------------------


def resumed_run() -> list[Event]:
    """The run of `whole_run`, killed after step 8, resumed from the save at 5, stopped at 13, resumed from 10."""
    whole = whole_run()
    first = [e for e in whole if getattr(e, "step", 0) <= 8]
    second = [e for e in whole if 5 < getattr(e, "step", 0) <= 13 and e.event != "finished"]
    third = [e for e in whole if getattr(e, "step", 0) > 10]
    return [*first, started(5), *second, stopped(13), note("resumed"), started(10), *third]


def test_steps_taken_again_appear_once(tmp_path: Path) -> None:
    run = wrote(begun(tmp_path), *resumed_run())
    steps = [e.step for e in run.events() if e.event == "step"]
    assert steps == list(range(1, 21)) and len(run.raw_events()) > len(run.events())
    assert [e.step for e in run.events() if e.event == "validation"] == [0, 5, 10, 15, 20]
    assert [e.step for e in run.events() if e.event == "saved"] == [5, 10, 15, 20]
    assert "stopped" not in [e.event for e in run.events()] and run.state() == "finished"


def test_the_step_taken_last_is_the_one_that_counts() -> None:
    events = [started(), step(1), step(2, loss=9.0), started(1), step(2, loss=3.0)]
    assert [e.loss for e in replay(events) if e.event == "step"] == [2.0, 3.0]


def test_a_resume_from_nothing_begins_again() -> None:
    events = [started(), step(1), step(2), started(0), step(1)]
    assert [e.step for e in replay(events) if e.event == "step"] == [1]


# -- state ---------------------------------------------------------------------------------------

STATES: dict[str, tuple[list[Event], str]] = {
    "nothing yet": ([], "planned"),
    "a note before the start": ([note()], "killed"),
    "started": ([started(), step(1)], "killed"),
    "stopped": ([started(), step(1), stopped(1)], "stopped"),
    "started again": ([started(), stopped(1), started(1)], "killed"),
    "failed": ([started(), builders.failed()], "failed"),
    "finished": (whole_run(), "finished"),
    "a note after the end": ([*whole_run(), note()], "finished"),
}


@pytest.mark.parametrize(("events", "state"), STATES.values(), ids=STATES)
def test_the_state_follows_from_the_events(tmp_path: Path, events: list[Event], state: str) -> None:
    assert wrote(begun(tmp_path), *events).state() == state


@pytest.mark.parametrize("events", [[], [note()], [started()], [started(), stopped(1)], [started(), builders.failed()]])
def test_a_run_that_a_process_holds_is_running(tmp_path: Path, events: list[Event]) -> None:
    run = wrote(begun(tmp_path), *events)
    with run.lock():
        assert run.state() == "running"


def test_looking_at_a_state_writes_nothing(tmp_path: Path) -> None:
    run = begun(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    run.state()
    assert sorted(p.name for p in tmp_path.iterdir()) == before


# -- many runs -----------------------------------------------------------------------------------


def test_runs_are_listed_oldest_first(tmp_path: Path) -> None:
    now = time.time()
    for age, name in ((3, "z"), (2, "a"), (1, "m")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").write_text("{}")
        os.utime(tmp_path / name / "plan.json", (now - age, now - age))
    (tmp_path / "no-run").mkdir()
    assert [r.name for r in list_runs(tmp_path)] == ["z", "a", "m"]
    assert list_runs(tmp_path / "nowhere") == []


def test_new_run_folders_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = []
    for _ in range(3):
        folder = new_folder("runs", "clinic")
        folder.mkdir(parents=True)
        folders.append(folder)
    assert len(set(folders)) == 3 and all(f.parent == Path("runs") and f.name.startswith("clinic-") for f in folders)


def test_a_run_that_died_while_it_loaded_begins_again_but_not_beside_a_living_one(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.log_path.write_text("importing torch\n")
    begun(tmp_path)
    with run.lock(), pytest.raises(RunError, match="already in use"):
        begun(tmp_path)
