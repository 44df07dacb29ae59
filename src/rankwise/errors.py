"""What can go wrong for a person, as one tree. Every error says what happened, what was expected and how to fix it.

RankwiseError            exit 1: refused or failed
├── UsageError           exit 2: the call or the job file is not what the contract says
│   └── JobError         a key, a value or a combination in a job that cannot be meant (with the YAML line)
│       └── UnknownGpuError  a GPU of a name that no entry of the device table matches
├── DataError            a data file that cannot be read as training rows or probes (with file and line)
├── ModelError           a model that cannot be found, read or used
├── BenchmarkError       a task of lm-evaluation-harness that cannot be run here
├── PlanError            a plan that is stale or cannot be carried out here
├── RecipeError          another tool's configuration that cannot be read, or is no supervised fine-tuning on text
├── RunError             a run folder that is in use, missing, damaged or not in the needed state
├── HubError             a repository of the Hugging Face hub that cannot be written to
├── SpaceError           not enough disk for what is about to be written
├── RegistryError        the registry of tenants, or a name or a version in it
│   └── UnknownTenant    nobody of that name is served
├── AdapterError         adapter files that are not taken in: unsafe, damaged, or of another base
├── TrainingError        training itself failed (loss not finite, process died)
│   └── OutOfMemory      in the middle of a step that several processes share
└── Interrupted          a person stopped it; the run can be resumed
AnswerIsNo               exit 3: it ran, and the answer is no (nothing fits, a gate failed)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class RankwiseError(Exception):
    """An error a user can meet and mend.

    Args:
        what: what happened, one sentence.
        expected: what was expected instead, one sentence or empty.
        fix: the next thing to do, one sentence or empty.
    """

    exit_code = 1

    def __init__(self, what: str, *, expected: str = "", fix: str = ""):
        super().__init__(what)
        self.what, self.expected, self.fix = what, expected, fix

    def __str__(self) -> str:
        return "\n".join(
            part
            for part in (
                self.what,
                self.expected and f"expected: {self.expected}",
                self.fix and f"fix: {self.fix}",
            )
            if part
        )

    def to_json(self) -> dict[str, str | int]:
        """The same three sentences for `--json`."""
        kind = type(self).__name__
        return {
            "kind": kind,
            "what": self.what,
            "expected": self.expected,
            "fix": self.fix,
            "exit_code": self.exit_code,
        }


class UsageError(RankwiseError):
    exit_code = 2


class Fault(NamedTuple):
    """One value of a job that cannot be meant.

    Attributes:
        key: dotted, such as `hardware.count`.
        what: what is wrong with it, without the place where it was written.
    """

    key: str
    what: str
    expected: str
    fix: str


class JobError(UsageError):
    """
    Args:
        faults: each value that cannot be meant, where that is known.
    """

    def __init__(self, what: str, *, expected: str = "", fix: str = "", faults: Sequence[Fault] = ()):
        super().__init__(what, expected=expected, fix=fix)
        self.faults = tuple(faults)


class UnknownGpuError(JobError):
    """A GPU of a name that no entry of the device table matches."""


class DataError(RankwiseError):
    """A fault in a data file; `what` starts with `file:line:` so that editors can jump to it."""

    def __init__(self, path: Path | str, line: int | None, what: str, *, expected: str = "", fix: str = ""):
        where = f"{path}:{line}" if line is not None else f"{path}"
        super().__init__(f"{where}: {what}", expected=expected, fix=fix)
        self.path, self.line = Path(path), line


class ModelError(RankwiseError):
    pass


class BenchmarkError(RankwiseError):
    """A task of lm-evaluation-harness that cannot be run here."""


class PlanError(RankwiseError):
    pass


class RecipeError(RankwiseError):
    """Another tool's configuration that cannot be read, or that trains something else than we price."""


class RunError(RankwiseError):
    pass


class HubError(RankwiseError):
    """A repository of the Hugging Face hub that cannot be written to."""


class SpaceError(RankwiseError):
    pass


class RegistryError(RankwiseError):
    pass


class UnknownTenant(RegistryError):
    pass


class AdapterError(RankwiseError):
    pass


class TrainingError(RankwiseError):
    pass


class OutOfMemory(TrainingError):
    """Memory ran out in a step that cannot be taken again where it stands; from a checkpoint it can, in smaller passes.

    Args:
        rows: in one forward pass when it ran out.
    """

    def __init__(self, rows: int, what: str, *, expected: str = "", fix: str = ""):
        super().__init__(what, expected=expected, fix=fix)
        self.rows = rows


class Interrupted(RankwiseError):
    pass


class AnswerIsNo(RankwiseError):
    exit_code = 3
