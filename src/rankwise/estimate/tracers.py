"""Several processes that trace, so that a plan with many candidates takes the time of a few, and this process needs no
torch.

They are started where at least three things are missing: importing torch takes as long as a dozen traces. They are new
interpreters, since a fork would copy the locks of other threads. This process alone writes to the cache; the others can
be killed at any time.
"""

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from rankwise.errors import RankwiseError
from rankwise.estimate.traced import (
    RECORDS,
    Order,
    adapter_order,
    is_refused,
    made_by,
    make_here,
    refuse,
    remember,
    remembered,
    restored,
    trace_order,
)
from rankwise.files import cache_folder, write_text
from rankwise.methods import TUNERS
from rankwise.records import Record, Setup
from rankwise.trace.stack import unsharded

WORTH = 3  # missing things from which on processes are started
MOST = 4  # each takes 5 s to start, and memory that a container may not have
PROCESS_BYTES = 800_000_000  # torch, transformers, PEFT, bitsandbytes and a trace of 80 layers
USUAL_DEPTH = 5  # layers of a short trace
# Nothing is computed, so more threads only spin; nothing is compiled, and bitsandbytes would load torch's compiler.
LIGHT = {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
Progress = Callable[[int, int], None]


class Tracers:
    """A pool of tracing processes, none of them started before it is worth it."""

    def __init__(self, limit: int, *, busy: bool = False) -> None:
        self.limit, self.busy = limit, busy
        self._processes: list[_Process] = []
        self._homes: dict[str, _Process] = {}

    def make(self, order: Order) -> Record | None:
        """One order; None while no process runs, unless many orders are to come, where this one starts them. Raises as
        `traced`, and RankwiseError when a process dies.
        """
        if not self._processes:
            if not (self.busy and _worth(WORTH, self.limit)):
                return None
            self._start(self.limit)
        process = self._homes.get(_run_of(order), self._processes[0])
        with self._or_none_at_all():
            process.send(order)
            answer = process.answer()
        return _kept(order, answer)

    def make_all(self, orders: Sequence[Order], progress: Progress) -> None:
        """Share orders among the processes: those of one run go to the same process, the longest first. One that is
        refused is passed over.

        Raises:
            RankwiseError: a process cannot be started, or died.
        """
        waiting = _groups(orders)
        busy: dict[_Process, list[Order]] = {}
        with self._or_none_at_all(), selectors.DefaultSelector() as answers:
            self._start(min(self.limit, len(waiting)))
            for process in self._processes:
                self._feed(process, waiting, busy, answers)
            done = 0
            while busy:
                for ready, _ in answers.select():
                    process = ready.data
                    answers.unregister(process.output)
                    answer = process.answer()
                    with suppress(RankwiseError):  # the order is refused, and `traced` will say so
                        _kept(busy[process].pop(0), answer)
                    done += 1
                    progress(done, len(orders))
                    self._feed(process, waiting, busy, answers)

    def _start(self, wanted: int) -> None:
        with self._or_none_at_all():
            while len(self._processes) < wanted:
                self._processes.append(_Process())

    def _feed(
        self,
        process: "_Process",
        waiting: deque[list[Order]],
        busy: dict["_Process", list[Order]],
        answers: selectors.BaseSelector,
    ) -> None:
        """The next order of the group that it works on, or of the next group; none when all are given."""
        group = busy.pop(process, None) or (waiting.popleft() if waiting else None)
        if group is None:
            return
        busy[process] = group
        self._homes[_run_of(group[0])] = process
        process.send(group[0])
        answers.register(process.output, selectors.EVENT_READ, process)

    @contextmanager
    def _or_none_at_all(self) -> Iterator[None]:
        """After an interruption nobody knows which answer would come next."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    @property
    def running(self) -> bool:
        return bool(self._processes)

    def close(self) -> None:
        """End all processes at once, whatever they do: nothing of theirs is on the disk."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.bury()
        self._processes, self._homes = [], {}


_open: list[Tracers] = []


@contextmanager
def tracers(workers: int | None = None, *, busy: bool = False) -> Iterator[Tracers]:
    """Inside, what `prepare` finds missing is traced by other processes, and so is everything after it.

    Args:
        workers: at most so many processes, 0 for none; None: one a core, as far as memory goes, none on a single core.
        busy: many things are going to be asked, so the first that is missing starts all processes. Without it this
            process would import torch for that one, and trace the others, too.

    Raises:
        RankwiseError: a process cannot be started, or died. What was traced before is remembered.
    """
    if _open:
        yield _open[-1]
        return
    pool = Tracers(_usual_workers() if workers is None else workers, busy=busy)
    _open.append(pool)
    try:
        with made_by(pool.make):
            yield pool
    finally:
        _open.remove(pool)
        pool.close()


def prepare(setups: Sequence[Setup], progress: Progress = lambda done, total: None) -> None:
    """Trace these setups and size their adapters' files, as far as that is not remembered.

    Outside of `tracers` the processes end with this call. A setup that cannot be traced is passed over: `traced` raises
    its error.

    Args:
        progress: called with (done, total) after each thing that was made.

    Raises:
        RankwiseError: a process cannot be started, or died. What was traced before is remembered.
    """
    wanted = {order.name: order for setup in setups for order in _orders(setup)}
    missing = [order for order in wanted.values() if remembered(order) is None and not is_refused(order)]
    with tracers() as pool:
        if pool.running or _worth(len(missing), pool.limit):
            pool.make_all(missing, progress)
            return
        for done, order in enumerate(missing, 1):
            with suppress(RankwiseError):  # it is kept, and raised to whoever asks for this setup
                make_here(order)
            progress(done, len(missing))


def _orders(setup: Setup) -> list[Order]:
    return [trace_order(setup), *([adapter_order(setup)] if setup.method != "full" else [])]


def _worth(missing: int, limit: int) -> bool:
    return missing >= WORTH and limit > 0 and "torch" not in sys.modules


def _usual_workers() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    room = psutil.virtual_memory().available // PROCESS_BYTES
    workers = min(cores, room, MOST)
    return workers if workers > 1 else 0


def _groups(orders: Sequence[Order]) -> deque[list[Order]]:
    """Orders that share a run, the groups that take longest first."""
    runs: dict[str, list[Order]] = defaultdict(list)
    for order in orders:
        runs[_run_of(order)].append(order)
    return deque(sorted(runs.values(), key=lambda group: -_cost(group)))


def _run_of(order: Order) -> str:
    """The run of a step that a trace is made from, by name: sharded setups have it in common."""
    if order.kind != "traces":
        return order.name
    return unsharded(Setup.model_validate(order.content)).content_hash()


def _cost(group: list[Order]) -> int:
    """About proportional to its time: layers that run, and what each sharding takes after it."""
    first = group[0]
    if first.kind != "traces":
        return 1
    tuner, config = TUNERS.get(first.content["method"]), first.content["config"]
    spans = tuner is not None and tuner.spans_layers
    depth = config.get("num_hidden_layers") or config.get("n_layer") if spans else None
    return 2 * int(depth or USUAL_DEPTH) + 3 * len(group)


def _kept(order: Order, answer: dict[str, Any]) -> Record:
    """The record of an answer, remembered. Raises the error that it holds in its place."""
    if "error" in answer:
        refuse(order, answer["error"])
        raise restored(answer["error"])
    made = RECORDS[order.kind].model_validate(answer["record"])
    remember(order, made)
    return made


class _Process:
    """One interpreter that runs `estimate.tracer`, and has one order at a time."""

    def __init__(self) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (`bury` closes it)
        ours = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(p for p in (ours, os.environ.get("PYTHONPATH", "")) if p)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "rankwise.estimate.tracer"],
                env=os.environ | {"PYTHONPATH": path} | LIGHT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C is for the parent, which kills it
            )
        except OSError as error:
            self._errors.close()
            raise RankwiseError(f"a tracing process cannot be started: {error}", fix="free some memory") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self.output = self._process.stdin, self._process.stdout

    def send(self, order: Order) -> None:
        try:
            self._input.write(json.dumps({"kind": order.kind, "content": order.content}).encode() + b"\n")
            self._input.flush()
        except BrokenPipeError:
            raise self._death() from None

    def answer(self) -> dict[str, Any]:
        """Waits for it. Raises RankwiseError when the process is dead."""
        line = self.output.readline()
        if not line.endswith(b"\n"):
            raise self._death()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _death(self) -> RankwiseError:
        try:
            code = self._process.wait(timeout=5)  # its output is closed, so it is about to end
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip()
        last = next((line for line in reversed(words.splitlines()) if line[:1].strip()), "")
        log = cache_folder() / "tracer.log"
        if words:
            write_text(log, words + "\n")
        return RankwiseError(
            f"a tracing process died (exit code {code})" + (f": {last}" if last else ""),
            expected="an answer; what was traced before is remembered",
            fix=(f"its last words are in {log}; " if words else "") + "free some memory, and run it again",
        )

    def kill(self) -> None:
        self._process.kill()

    def bury(self) -> None:
        self._process.wait()
        for pipe in (self._input, self.output, self._errors):
            with suppress(BrokenPipeError):  # an order that was not read
                pipe.close()
