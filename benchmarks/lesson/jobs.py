"""Pieces of work that are done once: each writes its own JSON as soon as it ends, and is not repeated.

A job is what its settings say, so that experiments that need the same arm name the same job.
"""

import json
import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.lesson.scale import Scale
from rankwise.files import write_text
from rankwise.records import content_hash
from rankwise.store import now

WAY = 1  # raised when a job computes something else than before, so that old files are not taken for new ones
WAITING = 5.0  # seconds between two looks at the file that asks for quiet
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        kind: which function does it.
        of: all that its outcome follows from beside the sizes that its kind uses, as JSON has it.
    """

    kind: str
    of: Settings


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    Attributes:
        does: what is done.
        seconds: that one took on one thread of the machine where this was written; a guess for the first.
        uses: fields of the scale that its outcome follows from.
    """

    does: Callable[["Bench", Job], dict[str, Any]]
    seconds: float
    uses: tuple[str, ...]


class NotRun(Exception):
    """A report asked for something that has not been run."""


@dataclass
class Bench:
    """Where jobs are done and what came of them.

    Attributes:
        work: folder of the JSON files, and of the weights that later jobs read.
        kinds: of jobs, by name.
        predictions: hash of the text that stood before the run.
        pause: while this file exists, nothing is computed.
        only_read: nothing is run: what is not there raises NotRun.
    """

    work: Path
    scale: Scale
    kinds: Mapping[str, Kind]
    predictions: str
    pause: Path | None = None
    only_read: bool = False
    spent: dict[str, list[float]] = field(default_factory=dict)

    def get(self, job: Job) -> dict[str, Any]:
        """What came of a job, which is done now if it was not before. Raises NotRun."""
        if (kept := self.kept(job)) is not None:
            return kept
        if self.only_read:
            raise NotRun(self.name(job))
        began, paused = time.monotonic(), self.breathe()
        found = _finite(self.kinds[job.kind].does(self, job))
        seconds = time.monotonic() - began - paused
        record = {
            "kind": job.kind,
            "of": dict(job.of),
            "found": found,
            "seconds": seconds,
            "ended": now(),
            "predictions": self.predictions,
        }
        write_text(self._file(job), json.dumps(record, allow_nan=False) + "\n")
        self.spent.setdefault(job.kind, []).append(seconds)
        return found

    def kept(self, job: Job) -> dict[str, Any] | None:
        """What came of a job earlier; None: it was not done."""
        record = self.record(job)
        return None if record is None else record["found"]

    def record(self, job: Job) -> dict[str, Any] | None:
        """The same with when it ended, how long it took and under which predictions."""
        file = self._file(job)
        if not file.is_file():
            return None
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def take(self, result: Mapping[str, Any]) -> int:
        """Take the rows of an earlier result.json as done, where the same would be computed; returns how many."""
        sizes, taken = self.scale.sizes(), 0
        for row in result["rows"] if result.get("way") == WAY else ():
            job, kind = Job(row["kind"], row["of"]), self.kinds.get(row["kind"])
            same = kind is not None and all(result["sizes"].get(field) == sizes[field] for field in kind.uses)
            if same and row["predictions"] == self.predictions and self.kept(job) is None:
                write_text(self._file(job), json.dumps(row, allow_nan=False) + "\n")
                taken += 1
        return taken

    def folder(self, job: Job) -> Path:
        """For the weights of a job, beside its JSON."""
        return self.work / self.name(job)

    def weights(self, job: Job) -> Path:
        """The weights that a job left; it is done again where they are not here, as where its JSON came from another
        machine.
        """
        self.get(job)
        if not self.folder(job).is_dir():
            self.kinds[job.kind].does(self, job)
        return self.folder(job)

    def name(self, job: Job) -> str:
        """Its name as a file: readable, and unique by a hash of everything that its outcome follows from."""
        sizes = {field: self.scale.sizes()[field] for field in self.kinds[job.kind].uses}
        parts = [f"{k}-{v}" for k, v in job.of.items() if isinstance(v, (int, float, str))]
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join([job.kind, *parts]))[:80]
        return f"{slug}-{content_hash([WAY, job.kind, dict(job.of), sizes])[:10]}"

    def _file(self, job: Job) -> Path:
        return self.work / f"{self.name(job)}.json"

    def breathe(self) -> float:
        """Wait while the file that asks for quiet is there; returns the seconds of it."""
        began = time.monotonic()
        while self.pause is not None and self.pause.exists():
            time.sleep(WAITING)
        return time.monotonic() - began


def expected(bench: Bench, jobs: Sequence[Job]) -> float:
    """Seconds of `jobs`: by the mean of those of their kind that were done in this run, else by what is known of it."""
    spent, kinds = bench.spent, bench.kinds
    return sum(mean(spent[j.kind]) if spent.get(j.kind) else kinds[j.kind].seconds for j in jobs)


def do_all(bench: Bench, jobs: Sequence[Job]) -> None:
    """Do what is not done, in order; says on stderr what there is, and how long the rest will take."""
    left = _missing(bench, jobs)
    total = len({bench.name(job) for job in jobs})
    said = f"{total} jobs, {total - len(left)} done before, {len(left)} to do: about "
    _say(f"{said}{expected(bench, left) / 60:.0f} minutes on one thread")
    for number, job in enumerate(left):
        began = time.monotonic()
        bench.get(job)
        rest = expected(bench, left[number + 1 :])
        _say(
            f"[{total - len(left) + number + 1}/{total}] {bench.name(job)}: {time.monotonic() - began:.0f} s; "
            f"about {rest / 60:.0f} minutes left"
        )


def _finite(value: Any) -> Any:
    """What JSON has no number for becomes null."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _missing(bench: Bench, jobs: Sequence[Job]) -> list[Job]:
    by_name = {bench.name(job): job for job in jobs}
    return [job for job in by_name.values() if bench.kept(job) is None]


def _say(text: str) -> None:
    sys.stderr.write(f"{now()[:19]} {text}\n")
    sys.stderr.flush()
