"""Tables: what fine-tuning needs and costs by size and method, computed, with what a lesson said of it beside."""

from typing import Any, Literal

from pydantic import Field

from rankwise.records.base import Interval, Record

Judgement = Literal["right", "approx", "partly", "wrong", "inconsistent", "unsupported"]
Part = Literal["memory", "cost", "claims"]
Number = int | float
Said = Number | tuple[Number, Number] | str


class Figure(Record):
    """One computed quantity, and what the lesson said of the same."""

    name: str
    value: int | float | str | None = Field(description="`null` where unknown; words where the answer is no number.")
    unit: str = Field(description="B, s, USD, parameters, ratio, share, …; empty for words.")
    interval: Interval | None = None
    said: Said | None = Field(None, description="By the lesson, in the same unit: a number, a range, or words.")


class LessonClaim(Record):
    """What the lesson said, as it stands in lesson.toml."""

    id: str
    topic: str
    said: str
    values: dict[str, Said] = Field(default_factory=dict, description="By the name of the computed figure.")
    verdict: Judgement
    why: str = Field(description="Why the computed figures or the evidence differ from it, or agree.")
    source: str


class Claim(Record):
    """A claim with what was computed of it."""

    id: str
    topic: str
    said: str
    computed: tuple[Figure, ...] | None = Field(description="`null`: nothing that an estimate or a plan could show.")
    verdict: Judgement
    why: str
    source: str


class SaidMemory(Record):
    """A cell of the lesson's memory table."""

    text: str
    bytes: int
    gpu: str
    gpus: int
    verdict: Judgement
    why: str


class SaidCost(Record):
    """A cell of the lesson's cost table."""

    text: str
    usd: Interval
    verdict: Judgement
    why: str


class Fit(Record):
    """The fewest GPUs of one kind on which the step fits. Bytes are those of one GPU."""

    gpu: str
    gpus: int | None = Field(description="`null`: it does not fit on the most that were tried.")
    tried: int = Field(description="The largest number that was tried.")
    parallel: str | None = Field(description="How it is spread; `null` where nothing fits or nothing was traced.")
    peak_device: int | None
    interval: Interval | None = Field(description="Of peak_device.")
    capacity: int


class MemoryRow(Record):
    """One size, method and recipe."""

    size: str
    model: str
    method: str
    recipe: str = Field(description="Short name; `assumptions` says what it is.")
    total_params: int = Field(description="With the adapter's.")
    trainable_params: int
    state_bytes: int = Field(description="Weights, gradients and optimizer state of the whole model.")
    fits: tuple[Fit, ...]
    said: SaidMemory | None
    source: str


class CostRow(Record):
    """One size and method, at one length of the examples. Seconds and USD; `null` where unknown."""

    size: str
    model: str
    method: str
    recipe: str
    tokens_per_example: int
    gpu: str
    gpus: int | None = Field(description="`null`: it does not fit on the most that were tried.")
    parallel: str | None
    train_seconds: float | None
    interval: Interval | None = Field(None, description="Of train_seconds.")
    gpu_hours: float | None
    usd_at_said_price: float | None = Field(description="At the lesson's price of an A100-hour.")
    usd_at_said_price_interval: Interval | None = None
    usd_per_hour: float | None = Field(description="Of one GPU, from the price table.")
    usd: float | None = Field(description="At that price.")
    usd_interval: Interval | None = None
    times_lora: float | None = Field(description="USD over those of LoRA at the same size and length.")
    said: SaidCost | None
    against_said: Literal["lower", "overlaps", "higher"] | None = Field(
        description="The interval at the lesson's price against the lesson's range."
    )
    source: str


class Tables(Record):
    """What `rankwise tables` found. A part that was not asked for is empty."""

    version: Literal[1] = 1
    memory: tuple[MemoryRow, ...]
    cost: tuple[CostRow, ...]
    claims: tuple[Claim, ...]
    assumptions: dict[str, str]

    def contract(self) -> dict[str, Any]:
        """What `tables --json` prints."""
        return self.model_dump(mode="json", exclude={"version"})
