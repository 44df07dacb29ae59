"""Starts the worker process, or torchrun around several, and listens. The face never imports torch, and a kill of any
process is clean.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

from rankwise.errors import Interrupted, RankwiseError, TrainingError
from rankwise.records import EVENT, Event, Failed, Note, Plan, Stopped
from rankwise.store import Run, now
from rankwise.train.nodes import Nodes, nodes_of


def launch(run: Run, *, resume: bool) -> Iterator[Event]:
    """Train `run` in a process of its own and yield its events as they happen.

    Ctrl-C here asks the worker to save and stop; it dies with this process however that ends (its standard input
    closes). Of several workers the first one's events are yielded; on other nodes than the first there are none.
    Several workers of one machine that run out of memory are started again, from the last checkpoint, with half the
    rows in a forward pass: in the middle of a step the others wait for what one of them cannot do.

    Raises:
        Interrupted: stopped on request, resumable.
        RankwiseError: what the worker reported, or that it died.
    """
    plan, rows = run.plan(), None
    nodes = nodes_of(plan.job.hardware)
    while True:
        failed = yield from _once(run, plan, nodes, resume=resume, rows=rows)
        if failed is None:
            return
        if failed.out_of_memory_rows is None or nodes.count > 1:
            yield failed
            raise TrainingError(failed.what, expected=failed.expected, fix=failed.fix)
        before, resume = failed.out_of_memory_rows, True
        rows = before // 2
        note = Note(time=now(), text=_smaller(failed, before, rows))
        run.append(note)
        yield note


def _smaller(failed: Failed, before: int, rows: int) -> str:
    return (
        f"OUT OF MEMORY with {before} rows in one forward pass of a process: started again from the last checkpoint "
        f"with {rows}, in more passes; each step still learns from the same rows ({failed.what})"
    )


def _once(
    run: Run, plan: Plan, nodes: Nodes, *, resume: bool, rows: int | None
) -> Generator[Event, None, Failed | None]:
    """One start of the worker, or of all of them. What it failed at is not yielded but returned. Raises as `launch`."""
    log_path = run.log_path if nodes.rank == 0 else run.folder / f"worker-node{nodes.rank}.log"
    with log_path.open("a") as log:
        worker = subprocess.Popen(
            _command(run, plan, resume, rows),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            env=os.environ | _threads(plan),
        )
    last: Event | None = None
    with _Forward(worker, several=plan.facts.device.count > 1) as forward:
        assert worker.stdout is not None
        for line in worker.stdout:
            if last is None and forward.asked and not forward.several:
                worker.send_signal(signal.SIGINT)  # the first came before it listened, and an import may swallow that
            last = EVENT.validate_json(line)
            if not isinstance(last, Failed):
                yield last
        code = worker.wait()
    resume_hint = f"continue with `rankwise train {run.folder} --resume`"
    if last is None and forward.asked and code != 0:
        raise Interrupted("stopped before the first step", fix=resume_hint)
    if isinstance(last, Stopped):
        raise Interrupted(f"stopped at step {last.step}: {last.reason}", fix=resume_hint)
    if isinstance(last, Failed):
        return last
    if code != 0:
        raise _died(run, code)
    return None


def _command(run: Run, plan: Plan, resume: bool, rows: int | None) -> list[str]:
    flags = ["--resume"] * resume + (["--micro-batch", str(rows)] if rows else [])
    if plan.facts.device.count == 1:
        return [sys.executable, "-m", "rankwise.worker", str(run.folder), "--held", *flags]
    each = plan.job.hardware.count
    return [sys.executable, "-m", "rankwise.train.torchrun", str(run.folder), str(each), *flags]


def _threads(plan: Plan) -> dict[str, str]:
    """Processes on one CPU share its cores; torchrun would leave each of them one thread. What is said stays."""
    cores, here = plan.facts.device.cores, plan.job.hardware.count
    if here == 1 or plan.facts.device.kind != "cpu" or cores is None or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, cores // here))}


def _died(run: Run, code: int) -> RankwiseError:
    how = f"was killed by signal {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    tail = Path(run.log_path).read_text(errors="replace").strip().splitlines()[-1:]
    return TrainingError(
        f"the training process {how}" + (f": {tail[0]}" if tail else ""),
        fix=f"see {run.log_path}; continue from the last checkpoint with `rankwise train {run.folder} --resume`",
    )


class _Forward:
    """While active, SIGINT and SIGTERM to this process go to the worker; the second one kills it.

    Several workers are asked through their standard input, which they share: torchrun answers a signal by ending them.
    """

    def __init__(self, worker: subprocess.Popen[str], *, several: bool):
        self.worker, self.several, self.asked = worker, several, False

    def __enter__(self) -> "_Forward":
        self.before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(ValueError):  # only the main thread may set handlers; a caller's thread keeps its own
                self.before[number] = signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, frame: object) -> None:
        if self.asked:
            self.worker.kill()
            self._close_input()
        elif self.several:
            self._write(b"stop")
        else:
            self.worker.send_signal(signal.SIGINT)
        self.asked = True

    def _write(self, word: bytes) -> None:
        assert self.worker.stdin is not None
        with suppress(OSError):  # it has ended
            os.write(self.worker.stdin.fileno(), word)

    def _close_input(self) -> None:
        """Workers end with it, those of torchrun as well."""
        assert self.worker.stdin is not None
        with suppress(OSError):
            self.worker.stdin.close()

    def __exit__(self, *exc: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.worker.poll() is None:
            self.worker.kill()
            self.worker.wait()
        self._close_input()
