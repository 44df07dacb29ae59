"""Failures of really different kinds through a real process: one message, the promised exit code, no traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rankwise.store import Run
from tests import builders
from tests.tiny import tiny_llama

ROOT = Path(__file__).parents[2]
JOB = "goal: task\nmodel: tiny\ndata: {train: rows.jsonl}\nhardware: cpu\n"
RANKWISE = [sys.executable, "-m", "rankwise"]
BUG = "import rankwise.api as api\ndef runs(folder):\n    return 1 / 0\napi.runs = runs\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RANKWISE_DEBUG", raising=False)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    return tmp_path


def called(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def refused(code: int, *arguments: str) -> str:
    done = called(*RANKWISE, *arguments)
    assert done.returncode == code and done.stdout == "", (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr and done.stderr.startswith("error:")
    return done.stderr


@pytest.mark.parametrize(
    ("file", "content", "code", "said"),
    [
        ("job.yaml", b"goal: [task\nmodel: x\n", 2, "job.yaml"),
        ("job.yaml", b"goal: task\nmodel: \xff\xfe\n", 2, "job.yaml"),
        ("job.yaml", JOB.replace("tiny", "/nowhere/model").encode(), 1, "/nowhere/model"),
        ("rows.jsonl", b"\x00\x01\x02", 1, "rows.jsonl"),
    ],
    ids=["not YAML", "not UTF-8", "no such model", "rows that are none"],
)
def test_bad_files(here: Path, file: str, content: bytes, code: int, said: str) -> None:
    tiny_llama(here / "tiny")
    (here / "job.yaml").write_text(JOB)
    (here / file).write_bytes(content)
    assert said in refused(code, "plan", "job.yaml")


def test_a_file_that_may_not_be_read(here: Path) -> None:
    (here / "job.yaml").symlink_to("job.yaml")  # a loop: nobody may read it, not even root
    assert "job.yaml" in refused(2, "plan", "job.yaml")
    (here / "runs" / "a").mkdir(parents=True)
    (here / "runs" / "a" / "plan.json").mkdir()
    assert "runs/a" in refused(1, "show", "runs/a")


def test_a_fault_of_ours_is_one_sentence_unless_debug_is_asked_for(here: Path) -> None:
    (here / "broken.py").write_text(BUG + "from rankwise.cli import main\nmain()\n")
    done = called(sys.executable, "broken.py", "runs")
    assert (done.returncode, done.stdout) == (1, "") and "Traceback" not in done.stderr
    assert "internal error: ZeroDivisionError" in done.stderr and "--debug" in done.stderr
    assert "Traceback" in called(sys.executable, "broken.py", "runs", "--debug").stderr


def test_a_reader_that_goes_is_no_fault(here: Path) -> None:
    line = f"set -o pipefail; {sys.executable} -m rankwise gpus --json | head -n 1"
    done = called("bash", "-c", line)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("arguments", ["gpus", "gpus --help", ""], ids=["a command", "help", "the road"])
def test_an_output_that_cannot_be_written(here: Path, arguments: str) -> None:
    done = called("bash", "-c", f"{sys.executable} -m rankwise {arguments} > /dev/full")
    assert done.returncode == 1 and "Traceback" not in done.stderr and "No space left" in done.stderr


def test_ctrl_c(here: Path) -> None:
    run = Run(here / "runs" / "a")
    run.begin(builders.plan())
    run.append(builders.started())
    with run.lock():  # it seems to train, and is followed
        process = subprocess.Popen(
            [*RANKWISE, "watch", "runs/a", "--live"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # a shell's background job ignores it, and hands that on
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )
        assert process.stderr is not None
        first = process.stderr.readline()
        os.kill(process.pid, signal.SIGINT)
        rest = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in "".join((first, *rest))
    assert "stopped by Ctrl-C" in rest[1]
