"""The folder of a comparison: what was planned, and what is done.

job.yaml  asked.json (before it was planned)  comparison.json  arms/ARM.json (its plan)  logs/  trials/*.json
runs/ (one folder each)  outcome.json  report.html
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rankwise.errors import RunError
from rankwise.files import read_record, write_record, write_text
from rankwise.records import Arm, Bakeoff, Outcome, Plan, Trial
from rankwise.records.shown import Shown
from rankwise.store import Run, job_yaml


class Folder(Shown):
    """One comparison."""

    def __init__(self, path: Path):
        self.path = path
        self.bakeoff_path = path / "comparison.json"
        self.draft_path = path / "asked.json"
        self.outcome_path = path / "outcome.json"
        self.report_path = path / "report.html"
        self.runs = path / "runs"

    def begin(self, asked: Bakeoff, plans: dict[str, Plan]) -> None:
        """Write what is asked, and each arm's plan, unless they are there. Raises RunError where the folder holds
        something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file", expected="a folder that is empty or not there yet")
        there = {p.name for p in self.path.iterdir()} - {".lock"} if self.path.is_dir() else set()
        if there and not self.draft_path.is_file():
            raise RunError(
                f"{self.path} is in use, and holds no comparison",
                expected="a folder that is empty or not there yet",
                fix="choose another --out",
            )
        if there:
            self.require_same(asked)
        if self.bakeoff_path.is_file():  # it goes on as it was planned, whatever a plan would say now
            return
        write_record(self.draft_path, asked)
        write_text(self.path / "job.yaml", job_yaml(asked.job))
        for name, plan in plans.items():
            write_record(self.plan_path(name), plan)

    def require_same(self, asked: Bakeoff) -> None:
        """Raises RunError where the comparison of this folder is another one than is asked for."""
        held = read_record(self.draft_path, Bakeoff)
        changed = [
            what
            for what, before, now in (
                ("the job", held.job_hash, asked.job_hash),
                ("the base model", held.base_hash, asked.base_hash),
                ("--methods", [a.arm for a in held.allowances], [a.arm for a in asked.allowances]),
                ("the budget", (held.unit, held.budget), (asked.unit, asked.budget)),
                ("--seeds", held.seeds, asked.seeds),
                ("--lr-sweep", _rates(held), _rates(asked)),
            )
            if before != now
        ]
        if changed:
            raise RunError(
                f"{self.path} holds another comparison: {', '.join(changed)} changed",
                expected="the same call that began it",
                fix="choose another --out for this one",
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one comparison at a time. Raises RunError: another process has it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with Run(self.path).lock():
            yield

    def bakeoff(self) -> Bakeoff:
        """As planned; before that as asked, with nothing dealt out yet."""
        return read_record(self.bakeoff_path if self.bakeoff_path.is_file() else self.draft_path, Bakeoff)

    def plan(self, arm: str) -> Plan:
        """Of an arm; untrained arms have the plan of a trained one, for model, data and device."""
        return read_record(self.plan_path(arm), Plan)

    def plan_path(self, arm: str) -> Path:
        return self.path / "arms" / f"{file_name(arm)}.json"

    def log_path(self, arm: str) -> Path:
        """What an arm's process prints beside its events."""
        return self.path / "logs" / f"{file_name(arm)}.log"

    def told_path(self, arm: str) -> Path:
        """What an arm's process tells of how far it is, a JSON line each."""
        return self.path / "logs" / f"{file_name(arm)}.jsonl"

    def trial(self, name: str) -> Trial | None:
        """A finished trial; None: it is not finished."""
        path = self.path / "trials" / f"{name}.json"
        return read_record(path, Trial) if path.is_file() else None

    def keep(self, name: str, trial: Trial) -> None:
        """Write it whole or not at all."""
        write_record(self.path / "trials" / f"{name}.json", trial)

    def trials(self) -> tuple[Trial, ...]:
        """All finished ones, by name."""
        return tuple(read_record(path, Trial) for path in sorted((self.path / "trials").glob("*.json")))

    def run(self, name: str) -> Run:
        """The run that a trial is made by."""
        return Run(self.runs / name)

    def outcome(self) -> Outcome:
        return read_record(self.outcome_path, Outcome)


def _rates(bakeoff: Bakeoff) -> int:
    return max(len(allowance.learning_rates) for allowance in bakeoff.allowances)


def file_name(arm: str) -> str:
    """Of an arm: `lora:r=8` -> `lora-r=8`. No two arms share one, since a name that is given has no `=`."""
    return re.sub(r"[^A-Za-z0-9._=+-]", "-", arm)


def sweep_name(arm: Arm, rate: float) -> str:
    return f"{file_name(arm.name)}-sweep-{rate:g}"


def final_name(arm: Arm, seed: int) -> str:
    return f"{file_name(arm.name)}-seed-{seed}"
