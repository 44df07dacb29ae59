"""The ledger: seconds that were predicted beside seconds that passed, and what follows for the next prediction."""

from typing import Literal

from pydantic import Field

from rankwise.records.base import Interval, Record

Family = Literal["full", "adapter", "quantised", "sharded"]
# What has a factor of its own. A whole run or evaluation is kept too, to show how good predictions are: its factor
# would mix those of its parts.
Quantity = Literal["step", "forward", "generation", "merge", "train", "evaluation"]


class Workload(Record):
    """What was timed, as far as its time depends on it. Lengths in tokens."""

    method: str
    rows: int = Field(description="Rows of one optimizer step, one forward pass or one batch of answers.")
    length: float = Field(description="Mean real tokens a row.")
    dtype: str = Field(description="Of the weights, with the arithmetic after a slash where that differs.")
    gradient_checkpointing: bool = False
    loss: str | None = None
    setup_hash: str | None = Field(None, description="Of the Setup; None where the work is no training step.")


class LedgerEntry(Record):
    """One prediction that came to be measured. A line of the ledger's file."""

    version: Literal[1] = 1
    at: str = Field(description="UTC, ISO 8601, when it was measured.")
    device: str = Field(description="DeviceFacts.name.")
    device_rate: Literal["measured", "datasheet"] = Field(
        description="What the prediction took the device's matmul rate from; factors on one say nothing of the other."
    )
    family: Family
    quantity: Quantity
    model: str
    work: Workload
    predicted: float = Field(gt=0, description="Seconds by formula alone, before any correction.")
    corrected: float = Field(gt=0, description="Seconds that were told.")
    actual: float = Field(gt=0, description="Seconds that passed.")
    source: str = Field(description="calibrate, doctor, or `run` and the name of its folder.")
    formula: int = Field(description="estimate.ledger.FORMULA of the prediction.")
    rankwise_version: str


class Correction(Record):
    """What the ledger says about predictions for one device and family."""

    factor: float = Field(gt=0, description="Seconds to expect / seconds by formula.")
    low: float = Field(gt=0, description="Lower end of the 90 % interval of one more piece of work, over `factor`.")
    high: float = Field(gt=0, description="Upper end, over `factor`.")
    count: int = Field(description="Entries that it was made from.")
    source: str = Field(description="How many, of what, when last.")


class AnswerBatch(Record):
    """Answers that are generated together."""

    rows: int
    prompt: int = Field(description="Tokens of the longest prompt; the others are padded to it.")
    steps: int = Field(description="New tokens of the longest answer: forward passes after the prompt's.")


class EvaluationWork(Record):
    """What an evaluation asks of the models, both sides together."""

    rows: int = Field(description="Forward passes of one row each, for likelihoods.")
    tokens: int = Field(description="Tokens of those rows.")
    labelled: int = Field(description="Positions of those rows whose logits are made.")
    batches: tuple[AnswerBatch, ...]


class Timing(Record):
    """One quantity of a calibration."""

    quantity: Quantity
    what: str = Field(description="The work in words.")
    seconds: float = Field(description="Median over `repeats`; of a single one that one.")
    spread: Interval = Field(description="Fastest and slowest of `repeats`, in seconds.")
    repeats: int
    predicted: float | None = Field(description="Seconds by formula; None where it knows no rate of this device.")

    @property
    def factor(self) -> float | None:
        """Measured / predicted."""
        return None if self.predicted is None else self.seconds / self.predicted


class Calibration(Record):
    """What `rankwise estimate --calibrate` measured on this machine."""

    version: Literal[1] = 1
    at: str
    device: str
    family: Family
    model: str
    weights: Literal["real", "random"] = Field(description="Random ones take the same time as trained ones.")
    timings: tuple[Timing, ...]
    entries: int = Field(description="Lines added to the ledger.")
    notes: tuple[str, ...] = ()
