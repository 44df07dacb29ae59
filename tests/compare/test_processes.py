"""Arms are started as devices are free, heard to the last line, and ended together when one fails."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rankwise.compare.folder import Folder
from rankwise.compare.processes import work_on
from rankwise.errors import Interrupted, TrainingError

SAY = "import sys, time; f = open(sys.argv[1], 'a'); f.write(sys.argv[2] + '\\n'); f.close(); time.sleep(float({}))"


class Sleeper:
    """A process that says one line, sleeps, and ends with a code."""

    def __init__(self, path: Path, line: str, seconds: float, code: int = 0):
        program = f"{SAY.format(seconds)}; sys.exit({code})"
        self.asked = False
        self.process = subprocess.Popen([sys.executable, "-c", program, str(path), line])

    def code(self) -> int | None:
        return self.process.poll()

    def ask_to_stop(self) -> None:
        self.asked = True
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def starter(folder: Folder, made: dict[str, Sleeper], **lines: tuple[str, float, int]) -> Callable[[str, int], Sleeper]:
    def start(arm: str, number: int) -> Sleeper:
        line, seconds, code = lines[arm]
        made[arm] = Sleeper(folder.told_path(arm), line.replace("DEVICE", str(number)), seconds, code)
        return made[arm]

    return start


def test_arms_run_in_order_as_devices_are_free(tmp_path: Path) -> None:
    folder, made = Folder(tmp_path), dict[str, Sleeper]()
    line = '{"what": "on DEVICE", "done": 1, "total": 1}'
    start = starter(folder, made, a=(line, 0.6, 0), b=(line, 0.0, 0), c=(line, 0.0, 0))
    told = [(arm, one.what) for arm, one in work_on(folder, ["a", "b", "c"], 2, start)]
    assert sorted(told) == [("a", "on 0"), ("b", "on 1"), ("c", "on 1")]
    assert [made[arm].code() for arm in "abc"] == [0, 0, 0]


def test_one_that_fails_ends_the_others(tmp_path: Path) -> None:
    folder, made = Folder(tmp_path), dict[str, Sleeper]()
    failed = '{"what": "failed", "failed": {"kind": "DataError", "what": "no rows", "expected": "some", "fix": "add"}}'
    start = starter(folder, made, a=('{"what": "works"}', 60.0, 0), b=(failed, 0.2, 1))
    with pytest.raises(TrainingError, match="no rows") as raised:
        list(work_on(folder, ["a", "b"], 2, start))
    assert (raised.value.expected, raised.value.fix) == ("some", "add")
    assert made["a"].asked and made["a"].code() not in (None, 0)


def test_one_that_was_stopped_says_so(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    stopped = '{"what": "failed", "failed": {"kind": "Interrupted", "what": "stopped", "expected": "", "fix": ""}}'
    with pytest.raises(Interrupted, match="stopped"):
        list(work_on(folder, ["a"], 1, starter(folder, {}, a=(stopped, 0.0, 1))))


def test_one_that_dies_without_a_word_is_told_of(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with pytest.raises(TrainingError, match="the process of a ended with code 7") as raised:
        list(work_on(folder, ["a"], 1, starter(folder, {}, a=('{"what": "works"}', 0.0, 7))))
    assert f"--out {tmp_path}" in raised.value.fix


SAVES_WHEN_ASKED = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(5)
    pathlib.Path(sys.argv[3]).touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1]).write_text(sys.argv[2] + "\\n")
time.sleep(60)
"""


class Saver(Sleeper):
    """A process that takes five seconds to save when it is asked to stop."""

    def __init__(self, path: Path, line: str, saved: Path):
        self.asked = False
        self.process = subprocess.Popen([sys.executable, "-c", SAVES_WHEN_ASKED, str(path), line, str(saved)])


@pytest.mark.parametrize("trains", [True, False])
def test_a_checkpoint_is_waited_for_and_an_answer_is_not(trains: bool, tmp_path: Path) -> None:
    folder, made = Folder(tmp_path), dict[str, Sleeper]()
    line = json.dumps({"what": "one", "done": 1, "total": 3, "trains": trains})

    def start(arm: str, number: int) -> Sleeper:
        made[arm] = Saver(folder.told_path(arm), line, tmp_path / "saved")
        return made[arm]

    work = work_on(folder, ["a"], 1, start)
    next(work)
    work.close()  # as Ctrl-C does
    assert made["a"].code() is not None
    assert (tmp_path / "saved").exists() == trains
