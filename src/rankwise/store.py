"""The run folder: file names, states, one writer at a time. A run is a folder, and the folder alone rebuilds its
report.

    job.yaml plan.json facts.json events.jsonl evidence.json artifact.json report.html checkpoints/ adapter|model/
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import yaml
from pydantic import ValidationError

from rankwise.errors import RunError
from rankwise.files import read_record, write_record, write_text
from rankwise.records import EVENT, Artifact, Event, Evidence, Facts, Job, Plan, Started
from rankwise.records.shown import Shown

LINEAGE = "lineage.json"  # beside published weights


def now() -> str:
    """UTC time, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Run(Shown):
    """One run folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.name = folder.resolve().name
        self.plan_path = folder / "plan.json"
        self.events_path = folder / "events.jsonl"
        self.evidence_path = folder / "evidence.json"
        self.artifact_path = folder / "artifact.json"
        self.report_path = folder / "report.html"
        self.log_path = folder / "worker.log"
        self.stop_path = folder / "stop"
        self.checkpoints = folder / "checkpoints"
        self.adapter = folder / "adapter"
        self.model = folder / "model"
        self.proof = folder / "proof"

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """An existing run. Raises RunError when the folder holds no plan."""
        run = cls(folder)
        if not run.plan_path.is_file():
            raise RunError(
                f"{folder} is not a run folder (no plan.json in it)",
                fix="`rankwise runs` lists the runs of this folder; `rankwise train JOB` makes one",
            )
        return run

    def begin(self, plan: Plan) -> None:
        """Write job, facts and plan. Raises RunError when the folder already holds something else."""
        if self.folder.exists() and not self.folder.is_dir():
            raise RunError(f"{self.folder} is a file", expected="a folder that is empty or not there yet")
        if self.folder.exists() and self._in_use():
            raise RunError(
                f"{self.folder} is already in use",
                expected="a folder that is empty or not there yet",
                fix=f"choose another --out, or continue with `rankwise train {self.folder} --resume`",
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "job.yaml", job_yaml(plan.job))
        write_record(self.folder / "facts.json", plan.facts)
        write_record(self.plan_path, plan)

    def _in_use(self) -> bool:
        """Anything but a plan of ours, and the log of a worker that died while it loaded; a `job.yaml` alone is what a
        person wrote.
        """
        names = {p.name for p in self.folder.iterdir()} - {".lock"}
        if "plan.json" in names:
            names.discard("worker.log")
        return (
            bool(names - {"job.yaml", "facts.json", "plan.json", "report.html"})
            or names == {"job.yaml"}
            or self._locked()
        )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one writer. The kernel drops the lock when the process dies, however it dies."""
        with (self.folder / ".lock").open("a") as file:  # not "w": who is kept out would wipe the holder's number
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"{self.folder} is in use by another process", fix="wait for it, or stop it first"
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def plan(self) -> Plan:
        return read_record(self.plan_path, Plan)

    def facts(self) -> Facts:
        return read_record(self.folder / "facts.json", Facts)

    def evidence(self) -> Evidence:
        return read_record(self.evidence_path, Evidence)

    def artifact(self) -> Artifact | None:
        return read_record(self.artifact_path, Artifact) if self.artifact_path.is_file() else None

    def append(self, event: Event) -> None:
        """Add one line to events.jsonl, on disk before this returns."""
        with self.events_path.open("a", encoding="utf-8") as file:
            file.write(event.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())

    def events(self) -> list[Event]:
        """All events in order; steps that a later resume took again appear once, as taken last."""
        return replay(self.raw_events())

    def raw_events(self) -> list[Event]:
        """Every line as written. A last line cut by a kill is dropped; any other bad line is RunError."""
        if not self.events_path.is_file():
            return []
        lines = self.events_path.read_bytes().splitlines(keepends=True)  # bytes: a kill may cut a character
        events = []
        for number, line in enumerate(lines, 1):
            try:
                events.append(EVENT.validate_json(line))
            except ValidationError:
                if number == len(lines) and not line.endswith(b"\n"):
                    break
                raise RunError(f"{self.events_path}:{number}: not an event of this version") from None
        return events

    def mend_events(self) -> None:
        """Cut a last line that a kill left half-written, so that the next event starts on a line of its own."""
        if self.events_path.is_file():
            whole, _, torn = self.events_path.read_bytes().rpartition(b"\n")
            if torn:
                with self.events_path.open("r+b") as file:
                    file.truncate(len(whole) + 1 if whole else 0)

    def state(self, events: Sequence[Event] | None = None) -> str:
        """planned | running | finished | stopped | failed | killed, from the folder alone.

        Args:
            events: of this run, where they were just read; None: they are read now.
        """
        events = self.raw_events() if events is None else events
        last = next((e.event for e in reversed(events) if e.event in ("finished", "stopped", "failed", "started")), "")
        if last == "finished":
            return last
        if self._locked():
            return "running"
        if last in ("stopped", "failed"):
            return last
        return "killed" if events else "planned"

    def writer(self) -> int | None:
        """Number of the process that writes to this folder now; None: nobody does.

        It is read from the lock file and counts only while the lock is held, which no dead process does: a number that
        the system has given to another process since is never returned.
        """
        try:
            written = (self.folder / ".lock").read_text().strip()
        except OSError:
            return None
        return int(written) if written.isdigit() and self._locked() else None

    def ask_to_stop(self) -> None:
        """Have the process that trains it save and stop after the step at work. Raises RunError where none does."""
        state = self.state()
        if state != "running":
            raise RunError(f"{self.folder} is not running, so there is nothing to stop (it is {state})")
        self.stop_path.touch()

    def _locked(self) -> bool:
        try:
            with (self.folder / ".lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False


def replay(events: list[Event]) -> list[Event]:
    """Drop what a resume undid: steps, validations and saves later than the step at which a later `started` began."""
    kept: list[Event] = []
    for event in events:
        if isinstance(event, Started):
            last = event.step or -1  # a run that starts over validates step 0 again
            kept = [e for e in kept if getattr(e, "step", -1) <= last and e.event not in ("stopped", "failed")]
        kept.append(event)
    return kept


def job_yaml(job: Job) -> str:
    content = job.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def new_folder(root: str, name: str) -> Path:
    """<root>/<name>-<UTC time>, not there yet."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = Path(root) / f"{name}-{stamp}"
    number = 2
    while folder.exists():
        folder = Path(root) / f"{name}-{stamp}-{number}"
        number += 1
    return folder


def list_runs(root: Path) -> list[Run]:
    """Run folders directly below `root`, oldest first."""
    folders = [p.parent for p in root.glob("*/plan.json")]
    return [Run(p) for p in sorted(folders, key=lambda p: ((p / "plan.json").stat().st_mtime, p.name))]
