"""Both ends of an arm: a process that trains on request, a JSON line in, a JSON line out."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Arm:
    """A process that trains on request."""

    def __init__(self, python: Path, module: str, log: Path, threads: int) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p),
        }
        self.log = log
        self.process = subprocess.Popen(
            [str(python), "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def ask(self, **content: Any) -> dict[str, Any]:
        """One run. Raises RuntimeError when the process has died."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(content) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"an arm died: {self.log.read_text()[-1000:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):  # it died before it had read its last line, and `ask` said so
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=30)


class Peer:
    """An arm that may be missing or refuse: then every answer is the reason, and nothing more is asked."""

    def __init__(self, name: str, python: Path, log: Path, threads: int) -> None:
        self.arm = Arm(python, f"benchmarks.train.peer_{name}", log, threads) if python.exists() else None
        self.reason = None if self.arm else f"not installed: there is no {python.parents[1].name}"

    def ask(self, **content: Any) -> dict[str, Any]:
        """One run, or {"error": why there is none}."""
        if self.arm is not None and self.reason is None:
            try:
                found = self.arm.ask(**content)
            except RuntimeError as error:
                found = {"error": f"the process died: {str(error).strip().splitlines()[-1][:200]}"}
            self.reason = found.get("error")
            if self.reason is None:
                return found
        return {"error": self.reason}

    def close(self) -> None:
        if self.arm is not None:
            self.arm.close()


def answer(trained: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The other end: one run for each line of stdin. What a library refuses is an answer, too."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    for line in sys.stdin:
        try:
            found = trained(json.loads(line))
        except (Exception, SystemExit) as error:
            said = str(error).strip().splitlines() or [""]
            found = {"error": f"{type(error).__name__}: {said[0][:200]}"}
        answers.write(json.dumps(found) + "\n")
        answers.flush()
