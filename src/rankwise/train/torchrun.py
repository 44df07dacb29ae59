"""`python -m rankwise.train.torchrun RUN DEVICES [--resume] [--micro-batch N]`: torchrun around the worker, and
one clear error when a process of it dies.

Everything that torchrun's own variables say holds: PET_NNODES, PET_NODE_RANK, PET_NPROC_PER_NODE, PET_MASTER_ADDR,
PET_MASTER_PORT, PET_RDZV_BACKEND and the others (an option of torchrun in capitals after PET_). Standard input is
passed on to the workers; SIGINT and SIGTERM are not, because torchrun would kill workers that are still saving: the
launcher asks them to stop through standard input.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch.distributed.run as torchrun
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from rankwise.records import EVENT, Failed
from rankwise.store import Run, now


def main(folder: str, devices: str, *flags: str) -> int:
    """Returns the exit code of the run; a failure is the last event, on disk and on standard output."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    options = ["--nproc-per-node", devices] if "PET_NPROC_PER_NODE" not in os.environ else []
    asked = [*options, "--signals-to-handle", "SIGQUIT", "-m", "rankwise.worker", folder, "--held", *flags]
    try:
        torchrun.run(torchrun.parse_args(asked))
    except ChildFailedError as error:
        run = Run(Path(folder))
        failed = root_cause(error.failures, run)
        if int(os.environ.get("PET_NODE_RANK") or 0) == 0 and not _told(run):
            run.append(failed)
        sys.stdout.write(failed.model_dump_json() + "\n")
        return 1
    return 0


def _told(run: Run) -> bool:
    events = run.raw_events()
    return bool(events) and isinstance(events[-1], Failed)


def root_cause(failures: dict[int, ProcessFailure], run: Run) -> Failed:
    """Of the processes that failed, the first that did so by itself: the others saw their connection to it close, or
    were ended by torchrun.
    """
    told = [(rank, failure, _said(failure)) for rank, failure in failures.items()]
    own = [t for t in told if not t[2].get("consequence") and t[1].exitcode != -15] or told
    rank, failure, said = min(own, key=lambda t: t[1].timestamp)
    if "failed" in said:
        event = EVENT.validate_python(said["failed"])
        assert isinstance(event, Failed)
        return event
    how = f"was killed by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with code {failure.exitcode}"
    return Failed(
        time=now(),
        what=f"process {rank} of this run {how}; the others were ended with it",
        expected="every process of a run until its end",
        fix=f"see {run.log_path} (SIGKILL is often the kernel's, for memory); continue from the last checkpoint with "
        f"`rankwise train {run.folder} --resume`",
    )


def _said(failure: ProcessFailure) -> dict[str, object]:
    """What the worker left in torchrun's error file; empty for one that was killed."""
    try:
        said = json.loads(failure.message)
    except (TypeError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
