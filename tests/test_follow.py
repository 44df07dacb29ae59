"""Following a run from another process: every line once, as soon as it is whole, until nobody writes."""

import json
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rankwise import api
from rankwise.cli import app
from rankwise.errors import RunError
from rankwise.records import Event
from rankwise.store import Run
from tests import builders
from tests.builders import started, step, stopped, whole_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.begin(builders.plan())
    return run


def write(run: Run, events: list[Event]) -> None:
    for event in events:
        run.append(event)


def test_a_run_that_has_ended_is_told_from_its_file(run: Run) -> None:
    write(run, whole_run())
    assert list(api.follow(run)) == whole_run()


def test_a_run_that_never_began_tells_nothing(run: Run) -> None:
    assert list(api.follow(run)) == []


def test_events_are_told_as_they_are_written(run: Run) -> None:
    told: list[tuple[float, Event]] = []

    def listen() -> None:
        told.extend((time.monotonic(), event) for event in api.follow(run, poll_seconds=0.02))

    listener = threading.Thread(target=listen)
    with run.lock():
        write(run, [started(), step(1)])
        listener.start()
        deadline = time.monotonic() + 20
        while len(told) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [event for _, event in told] == [started(), step(1)], "told while the run goes on"
        line = step(2).model_dump_json() + "\n"
        with run.events_path.open("a") as file:
            file.write(line[:20])
            file.flush()
            time.sleep(0.2)
            assert len(told) == 2, "half a line is no event"
            file.write(line[20:])
        write(run, [stopped(2)])
    listener.join(20)
    assert [event for _, event in told] == [started(), step(1), step(2), stopped(2)]


def test_a_run_that_was_killed_ends_what_follows_it(run: Run) -> None:
    write(run, [started(), step(1)])
    with run.events_path.open("a") as file:
        file.write(step(2).model_dump_json()[:30])
    assert list(api.follow(run)) == [started(), step(1)]


def test_a_line_that_is_no_event_is_an_error(run: Run) -> None:
    run.events_path.write_text('{"event": "surprise"}\n')
    with pytest.raises(RunError, match="not an event of this version"):
        list(api.follow(run))


def test_watch_live_tells_a_run_as_train_does(run: Run) -> None:
    write(run, whole_run())
    done = CliRunner().invoke(app, ["watch", str(run.folder), "--live", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["state"] == "finished"
    assert "step 20/20" in done.stderr and "finished at step 20" in done.stderr
    assert done.stderr.count("[docs/findings.md#learned]") == 1


@pytest.mark.parametrize("beside", [("--truncate",), ("--base", "embedded"), ("--page", "x.html"), ("--adapter-only",)])
def test_watch_live_reads_no_weights(beside: tuple[str, ...], run: Run) -> None:
    done = CliRunner().invoke(app, ["watch", str(run.folder), "--live", *beside])
    assert done.exit_code == 2 and "--live follows the events" in done.stderr


def test_memory_of_what_this_process_has_started() -> None:
    import subprocess
    import sys

    code = "held = bytearray(200_000_000); print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        found = api.memory_below()
        child.communicate("\n")
    assert found is not None and 200_000_000 <= found < 2_000_000_000
