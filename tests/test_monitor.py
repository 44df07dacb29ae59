"""A run looked at again and again from another process: what each look tells, and how it is stopped."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rankwise import api
from rankwise.errors import RunError
from rankwise.records import Event
from rankwise.store import Run
from rankwise.watch.findings import find
from tests import builders
from tests.builders import finished, rehearsed, started, step, stopped, whole_run
from tests.test_follow import write
from tests.training import end, start, toy_model, toy_run, wait_for


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.begin(builders.plan())
    return run


def test_a_planned_run_knows_its_steps_and_nothing_else(run: Run) -> None:
    look = api.Monitor(run).look()
    assert (look.state, look.step, look.left, look.memory, look.peak_memory) == ("planned", None, None, None, None)
    config = run.plan().verdict.config
    assert config is not None and look.max_steps == config.max_steps and look.findings == []


def test_each_look_tells_what_was_written_since(run: Run) -> None:
    monitor = api.Monitor(run)
    with run.lock():
        write(run, [started(), step(1)])
        assert monitor.look().events == [started(), step(1)]
        write(run, [rehearsed(), step(2)])
        with run.events_path.open("a") as file:
            file.write(step(3).model_dump_json()[:30])
        look = monitor.look()
        assert look.events == [started(), step(1), rehearsed(), step(2)]
        assert (look.state, look.step, look.max_steps) == ("running", 2, 20)
        assert look.peak_memory == rehearsed().peak_memory_bytes
    assert monitor.look().state == "killed"


def test_findings_follow_the_events(run: Run) -> None:
    monitor = api.Monitor(run)
    with run.lock():
        write(run, [started(), *(step(n) for n in range(1, 4))])
        assert monitor.look().findings == find(run.plan(), run.events())
        for n in range(4, 60):
            write(run, [step(n, loss=50.0 + n)])
            look = monitor.look()
        assert look.findings == find(run.plan(), run.events()) and [f.name for f in look.findings]


def test_what_a_resume_took_again_stands_once(run: Run) -> None:
    monitor = api.Monitor(run)
    write(run, [started(), step(1), step(2), step(3), stopped(3)])
    assert monitor.look().step == 3
    write(run, [started(2), step(3), step(4)])
    assert monitor.look().events == run.events()


def test_memory_is_that_of_the_process_that_holds_the_folder(run: Run) -> None:
    monitor = api.Monitor(run)
    with run.lock():
        write(run, [started(), step(1)])
        memory = monitor.look().memory
        assert run.writer() == os.getpid() and memory is not None and 10_000_000 < memory < 50_000_000_000
    assert run.writer() is None and monitor.look().memory is None, "the number is still in the file, and counts no more"
    assert (run.folder / ".lock").read_text().strip() == str(os.getpid())


def test_who_is_kept_out_does_not_wipe_the_holders_number(run: Run) -> None:
    with run.lock():
        with pytest.raises(RunError, match="in use by another process"), run.lock():
            pass
        assert run.writer() == os.getpid()


def test_the_time_left_shrinks_by_the_clock(run: Run) -> None:
    events = [started(), *(step(n, seconds=10.0) for n in range(1, 9))]
    last = datetime.fromisoformat(events[-1].time)
    with run.lock():
        write(run, events)
        at_once, later = (
            api.Monitor(run, lambda wait=wait: last + timedelta(seconds=wait)).look().left for wait in (0, 30)
        )
    assert at_once is not None and later is not None and at_once.source == later.source == "measured"
    assert at_once.seconds - later.seconds == pytest.approx(30)


def test_a_run_that_has_ended_has_no_time_left_and_its_own_findings(run: Run) -> None:
    write(run, whole_run())
    look = api.Monitor(run, lambda: datetime(2030, 1, 1, tzinfo=UTC)).look()
    assert (look.state, look.left, look.memory, look.stopping) == ("finished", None, None, False)
    assert look.peak_memory == finished().peak_memory_bytes and look.speed is not None
    assert [f.name for f in look.findings if f.name == "learned"] == ["learned"]


@pytest.mark.parametrize("events", [[], [started(), step(1)], [started(), stopped(1)], whole_run()])
def test_what_does_not_run_is_not_stopped(run: Run, events: list[Event]) -> None:
    write(run, events)
    with pytest.raises(RunError, match="is not running, so there is nothing to stop"):
        api.stop(run)
    assert not run.stop_path.exists()


def test_a_run_that_trains_in_another_process_saves_and_stops_twice(tmp_path: Path) -> None:
    model = toy_model(tmp_path / "model")
    run = toy_run(tmp_path, model, train={"max_steps": 20_000, "save_steps": 20_000, "eval_steps": 20_000})
    monitor, before = api.Monitor(run), 0
    for _ in range(2):
        process = start("train", run.folder, "--resume")
        try:
            wait_for(lambda: (monitor.look().step or 0) > before + 1, process, seconds=500)  # noqa: B023 asked at once
            look = monitor.look()
            assert look.state == "running" and look.memory is not None and not look.stopping
            api.stop(run)
            process.communicate(timeout=300)
        finally:
            end(process)
        look = monitor.look()
        assert process.returncode == 1 and look.state == "stopped" and look.step is not None and look.step < 20_000
        assert list(run.checkpoints.glob(f"checkpoint-{look.step}")), "it can be resumed"
        before = look.step
