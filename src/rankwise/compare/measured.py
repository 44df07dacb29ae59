"""What the process of one arm tells: how long things take, how far it is, what went wrong."""

from statistics import median

from pydantic import Field

from rankwise.records import Interval, Record
from rankwise.records.bakeoff import ArmKind


class Measured(Record):
    """Seconds of one arm's work, measured where it will run."""

    start: float = Field(description="From the start of a process until its rows are read.")
    load: float = Field(description="Of the model, with its method attached.")
    look: float = Field(0.0, description="Of one look at the loss on the rows set aside.")
    steps: tuple[float, ...] = Field((), description="Of optimizer steps at the mean length of the rows.")
    step_flops: float | None = Field(None, description="Of a step at the mean length, traced.")
    answers: dict[ArmKind, dict[int, float]] = Field(
        {}, description="Of all answers of one model, asked in that way so many items of each kind."
    )

    items: dict[str, int] = Field({}, description="Metric that is a share -> its items, where all are asked.")

    @property
    def step(self) -> float | None:
        """The median step; None: nothing is trained."""
        return median(self.steps) if self.steps else None

    @property
    def spread(self) -> Interval:
        """The shortest and the longest step, of the median one."""
        if not self.step:
            return 1.0, 1.0
        return min(self.steps) / self.step, max(self.steps) / self.step


class Told(Record):
    """One line of an arm's process: so much of a piece of work is done, or it has failed, or what was measured."""

    what: str
    done: int = 0
    total: int = 0
    trains: bool = Field(False, description="It is between two steps of a run: what is done is worth a checkpoint.")
    measured: Measured | None = None
    failed: dict[str, str | int] | None = Field(None, description="An error's kind, what, expected, fix, exit code.")
