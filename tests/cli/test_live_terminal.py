"""`rankwise train` on a real terminal (a pseudo-terminal): it is drawn, survives a resize, and is left as it was."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rankwise.store import Run
from tests.training import environment, reached, toy_job, toy_model

ENTER, LEAVE, HIDE, SHOW = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25l", "\x1b[?25h"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("model"))


class Terminal:
    """`rankwise ...` whose standard error is a terminal of a given size."""

    def __init__(self, *arguments: object, columns: int, lines: int):
        self.master, slave = pty.openpty()
        self.resize(columns, lines)
        env = {k: v for k, v in environment().items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rankwise", *map(str, arguments)],
            env=env | {"TERM": "xterm-256color"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=slave,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )
        os.close(slave)
        os.set_blocking(self.master, False)
        self.shown = ""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self) -> str:
        try:
            while chunk := os.read(self.master, 1 << 16):
                self.shown += chunk.decode(errors="replace")
        except OSError:  # nothing there now, or the other end is closed
            pass
        return self.shown

    def wait_for(self, condition: Callable[[], object], seconds: float = 180) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end and self.process.poll() is None, self.read()[-3000:]
            self.read()
            time.sleep(0.05)

    def finish(self, seconds: float = 120) -> tuple[int, str]:
        """Exit code and standard output."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.read()
            time.sleep(0.05)
        assert self.process.stdout is not None
        out = self.process.stdout.read().decode()
        code = self.process.wait(1)
        self.read()
        os.close(self.master)
        return code, out


def frames(shown: str) -> list[str]:
    """What was drawn between entering and leaving the second screen, picture by picture, without colours."""
    inside = shown.split(ENTER, 1)[1].split(LEAVE, 1)[0]
    return [plain for part in inside.split("\x1b[H") if (plain := bare(part)).strip()]


def bare(text: str) -> str:
    """Without colours and other orders to the terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_run_is_drawn_resized_and_stopped_and_the_terminal_is_left_clean(model: Path, tmp_path: Path) -> None:
    train = {"max_steps": 100_000, "save_steps": 50_000, "eval_steps": 50_000, "learning_rate": 1e-3}
    run = Run(tmp_path / "run")
    terminal = Terminal("train", toy_job(tmp_path, model, train=train), "--out", run.folder, columns=80, lines=24)
    try:
        terminal.wait_for(reached(run, 5))
        terminal.wait_for(lambda: "gradient norm" in terminal.shown)
        before = len(terminal.shown)
        terminal.resize(140, 40)
        terminal.wait_for(lambda: terminal.shown[before:].count("gradient norm") >= 4)
        terminal.process.send_signal(signal.SIGINT)
        code, _ = terminal.finish()
    finally:
        terminal.process.kill()
    shown = terminal.shown
    assert code == 1 and run.state() == "stopped"
    assert shown.count(ENTER) == shown.count(LEAVE) == 1 and shown.index(ENTER) < shown.index(LEAVE)
    assert shown.rindex(HIDE) < shown.rindex(SHOW)
    pictures = frames(shown)
    assert len(pictures) >= 3
    widths = [max(len(line.rstrip()) for line in picture.splitlines()) for picture in pictures]
    heights = [len(picture.splitlines()) for picture in pictures]
    assert heights[0] <= 24 < max(heights) <= 40 and widths[0] <= 80 and max(widths) <= 140
    for word in ("loss", "validation", "learning rate", "speed", "memory", "left ("):
        assert any(word in picture for picture in pictures), word
    after = bare(shown.split(LEAVE, 1)[1])
    assert "stopped: stopped at step" in after and "--resume" in after
    assert "loss" in after, "the last picture stays"
    assert "Traceback" not in shown
