"""The process that trains. Started by train/launch.py; of a run on several devices there are as many, started by
torchrun, or by whoever sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.

    python -m rankwise.worker RUN [--resume]

The first process alone writes: each event goes to events.jsonl and, as the same line, to standard output; everything
else goes to standard error.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import psutil
import torch

from rankwise.errors import RankwiseError, TrainingError
from rankwise.files import write_text
from rankwise.records import Failed
from rankwise.store import Run
from rankwise.train.engines.group import rank, world_size
from rankwise.worker.held import die_with_parent
from rankwise.worker.road import failed, work

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # set by torchrun: where a process leaves why it failed

LOST = ("connection closed by peer", "connection reset by peer", "connection refused", "gloo", "nccl", "broken pipe")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rankwise.worker")
    parser.add_argument("run", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--micro-batch", type=int, help="rows in one forward pass at the most, where memory ran out")
    parser.add_argument("--held", action="store_true", help="standard input is the launcher's: bytes ask to stop")
    arguments = parser.parse_args()
    events_out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to the log, not between the events
    stop_signal = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop_signal.set())
    if arguments.held:
        threading.Thread(target=die_with_parent, args=(stop_signal,), daemon=True).start()
    try:
        run, began = Run.open(arguments.run), psutil.Process().create_time()
        rows = arguments.micro_batch
        for event in work(run, resume=arguments.resume, stop_signal=stop_signal, micro_batch=rows, began=began):
            if rank() == 0:
                print(event.model_dump_json(), file=events_out)
    except RankwiseError as error:
        return _tell(failed(error), events_out, error.exit_code, _error_file(arguments))
    except Exception as error:
        traceback.print_exc()
        first_line = next(iter(str(error).splitlines()), "")
        who = f"process {rank()} of {world_size()}: " if world_size() > 1 else ""
        what = f"{who}{type(error).__name__}: {first_line}"
        wrapped = TrainingError(what, fix=f"the traceback is in {arguments.run}/worker.log")
        file = _error_file(arguments)
        if file is None and rank() == 0:
            Run(arguments.run).append(failed(wrapped))
        return _tell(failed(wrapped), events_out, 1, file, consequence=_lost_another(error))
    return 0


def _error_file(arguments: argparse.Namespace) -> Path | None:
    """Where one of several processes leaves why it failed: torchrun then says which was the first."""
    path = os.environ.get(ERROR_FILE)
    return Path(path) if arguments.held and path and world_size() > 1 else None


def _tell(failed: Failed, events_out: Any, code: int, file: Path | None, *, consequence: bool = False) -> int:
    """To whoever started this process: as a line, or in torchrun's file."""
    if file is not None:
        said = json.dumps({"failed": failed.model_dump(), "consequence": consequence})
        write_text(file, json.dumps({"message": said, "timestamp": int(time.time())}))
    elif rank() == 0:
        print(failed.model_dump_json(), file=events_out)
    if world_size() > 1:  # at once: a collective that waits for this process would hold the interpreter's exit
        events_out.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _lost_another(error: Exception) -> bool:
    """Is it what a process sees when another one has died?"""
    said = str(error).lower()
    return isinstance(error, torch.distributed.DistBackendError) or any(word in said for word in LOST)


if __name__ == "__main__":
    sys.exit(main())
