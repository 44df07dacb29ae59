"""What a look at the rows of a job found, before anything trains on them."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from rankwise.records.base import Record
from rankwise.records.job import OnLong

Level = Literal["fault", "answered", "warning"]


class Place(Record):
    """Where a row stands."""

    path: Path
    line: int = Field(description="1-based line of the file.")


class AuditFinding(Record):
    """Rows that one check found fault with."""

    check: str
    level: Level = Field(
        description="fault: training would go wrong, and is refused; answered: a key of the job says what to do with "
        "it; warning: to be looked at."
    )
    count: int
    of: int = Field(description="How many were looked at.")
    unit: str = Field(description="What is counted.")
    text: str
    fix: str
    places: tuple[Place, ...] = Field(description="The first few.")


class Checked(Record):
    """How much a check has looked at."""

    check: str
    amount: int
    unit: str


class Spread(Record):
    """A distribution over rows, as given in the file."""

    least: float
    p5: float
    median: float
    p95: float
    most: float
    unit: str


class Piece(Record):
    """Text between two changes of what is learned, or of what is left of the row."""

    text: str
    trained: bool
    lost: bool = Field(False, description="Beyond what `max_length` and `on_long` leave of the row: nobody sees it.")


class TrainedView(Record):
    """A row as the model sees it, decoded from its ids."""

    place: Place
    tokens: int
    pieces: tuple[Piece, ...]


class Audit(Record):
    """The rows of a job as training would see them."""

    version: Literal[1] = 1
    model: str
    format: str
    rows: int = Field(description="Training rows, held-out ones of the same file included.")
    tokens: int
    supervised_tokens: int
    max_length: int = Field(description="Tokens.")
    on_long: OnLong
    lengths: Spread
    supervised_share: Spread
    length_histogram: tuple[tuple[int, int], ...] = Field(description="(upper length in tokens, rows).")
    checked: tuple[Checked, ...]
    findings: tuple[AuditFinding, ...]
    views: tuple[TrainedView, ...]

    @property
    def faults(self) -> tuple[AuditFinding, ...]:
        """What training is refused for."""
        return tuple(f for f in self.findings if f.level == "fault")
