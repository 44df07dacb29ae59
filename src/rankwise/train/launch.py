"""Starts the worker process and listens to it. The face never imports torch, and a kill of either process is clean."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rankwise.errors import Interrupted, RankwiseError, TrainingError
from rankwise.records import EVENT, Event, Failed, Stopped
from rankwise.store import Run


def launch(run: Run, *, resume: bool) -> Iterator[Event]:
    """Train `run` in a process of its own and yield its events as they happen.

    Ctrl-C here asks the worker to save and stop; it dies with this process however that ends (its standard input
    closes).

    Raises:
        Interrupted: stopped on request, resumable.
        RankwiseError: what the worker reported, or that it died.
    """
    command = [sys.executable, "-m", "rankwise.worker", str(run.folder), *(["--resume"] if resume else [])]
    with run.log_path.open("a") as log:
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
    last: Event | None = None
    with _Forward(worker) as forward:
        assert worker.stdout is not None
        for line in worker.stdout:
            if last is None and forward.asked:
                worker.send_signal(signal.SIGINT)  # the first came before it listened, and an import may swallow that
            last = EVENT.validate_json(line)
            yield last
        code = worker.wait()
    resume_hint = f"continue with `rankwise train {run.folder} --resume`"
    if last is None and forward.asked and code != 0:
        raise Interrupted("stopped before the first step", fix=resume_hint)
    if isinstance(last, Stopped):
        raise Interrupted(f"stopped at step {last.step}: {last.reason}", fix=resume_hint)
    if isinstance(last, Failed):
        raise TrainingError(last.what, expected=last.expected, fix=last.fix)
    if code != 0:
        raise _died(run, code)


def _died(run: Run, code: int) -> RankwiseError:
    how = f"was killed by signal {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    tail = Path(run.log_path).read_text(errors="replace").strip().splitlines()[-1:]
    return TrainingError(
        f"the training process {how}" + (f": {tail[0]}" if tail else ""),
        fix=f"see {run.log_path}; continue from the last checkpoint with `rankwise train {run.folder} --resume`",
    )


class _Forward:
    """While active, SIGINT and SIGTERM to this process go to the worker; the second one kills it."""

    def __init__(self, worker: subprocess.Popen[str]):
        self.worker, self.asked = worker, False

    def __enter__(self) -> "_Forward":
        self.before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(ValueError):  # only the main thread may set handlers; a caller's thread keeps its own
                self.before[number] = signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, frame: object) -> None:
        self.worker.send_signal(signal.SIGKILL if self.asked else signal.SIGINT)
        self.asked = True

    def __exit__(self, *exc: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.worker.poll() is None:
            self.worker.kill()
            self.worker.wait()
