"""`python -I guard.py COMMAND ...`: runs vLLM's server and ends it, with every process that it started, when whoever
holds the other end of standard input goes away, however that came about. Standard library alone: it is run by its path.

It leads a process group of its own (`start_new_session` by whoever starts it), and the group is what it ends: vLLM's
engine and workers are children of children, which outlive a server that is killed.
"""

import os
import select
import signal
import subprocess
import sys
import time

GRACE = 10.0  # seconds for vLLM to end by itself before it is killed
LOOKS = 0.2  # seconds between looks at the server


def main(command: list[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # what comes to the group is for the server; this process outlives it
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while server.poll() is None and not _left():
        pass
    if server.poll() is None:
        _ask(server)
    sys.stdout.write(f"vLLM's server ended with code {server.poll()}\n")
    sys.stdout.flush()
    os.killpg(0, signal.SIGKILL)  # this process is one of them: the last one


def _left() -> bool:
    readable, _, _ = select.select([0], [], [], LOOKS)
    return bool(readable) and os.read(0, 64) == b""


def _ask(server: "subprocess.Popen[bytes]") -> None:
    os.killpg(0, signal.SIGTERM)
    end = time.monotonic() + GRACE
    while server.poll() is None and time.monotonic() < end:
        time.sleep(LOOKS / 4)


if __name__ == "__main__":
    main(sys.argv[1:])
