"""Evidence: what a run showed. Finding: what should be done about it. Comparison: is it better, or can we not tell?"""

from typing import Literal

from pydantic import Field

from rankwise.records.base import Interval, Record
from rankwise.records.benchmark import Benchmarks
from rankwise.records.event import Level, Slice
from rankwise.records.spectra import SpectrumSummary


class Comparison(Record):
    """One metric of two models on the same items, paired item by item."""

    metric: str = Field(description="format | exact_match | facts | facts_choice | heldout_loss | general_loss.")
    unit: str = Field(description="share, or nats per token.")
    items: int = Field(description="Rows or probes compared.")
    base: float
    base_interval: Interval
    tuned: float
    tuned_interval: Interval
    difference: float = Field(description="tuned - base.")
    difference_interval: Interval = Field(description="95 %, paired bootstrap over items.")
    answer: Literal["better", "worse", "cannot tell"]
    source: str = Field(description="How the numbers and intervals were computed.")


class Answer(Record):
    """One prompt answered by the untouched base and by the tuned model."""

    kind: Literal["format", "fact"]
    prompt: str
    expected: str
    base: str
    tuned: str
    base_ok: bool
    tuned_ok: bool


class Evaluation(Record):
    """Tuned model against the untouched base it came from."""

    comparisons: tuple[Comparison, ...]
    answers: tuple[Answer, ...]
    seconds: float
    notes: tuple[str, ...]


class Finding(Record):
    """Something the run says about itself, with advice."""

    name: str
    level: Literal["good", "warning", "fault"]
    text: str
    number: str | None
    advice: str | None
    link: str | None = Field(None, description="Page and anchor of our documentation; None in older runs.")


class Actual(Record):
    """A prediction beside what happened."""

    quantity: str = Field(
        description="step_seconds, validation_seconds, save_seconds, watch_seconds, train_seconds (the whole run), "
        "tokens_per_second, peak_memory, trainable_params, checkpoint; evaluation_seconds and merge_seconds of the "
        "commands after it."
    )
    unit: str
    predicted: float | None
    interval: Interval | None
    actual: float | None
    source: str


class Threshold(Record):
    """From where on one slice of general ability is amber or red, for this base."""

    slice: str
    unit: str
    baseline: float = Field(description="Of this base.")
    amber: float | None = Field(description="Difference at which green ends; None: where chance no longer explains it.")
    red: float | None = Field(description="Difference at which red begins; None: this base has nothing to lose here.")
    source: str


class FrontierPoint(Record):
    """One state of a run: what it learned against what it forgot."""

    step: int
    task_loss: float = Field(description="On held-out rows, nats per token.")
    differences: dict[str, float] = Field(description="Slice -> difference from the base, in the slice's unit.")
    kl: float | None = Field(description="KL(base || tuned) on prompts of the task, nats per token.")
    level: Level


class Forgotten(Record):
    """What a run has cost in general ability."""

    level: Level = Field(description="Of the weights that were published; of the last look where none were.")
    step: int = Field(description="Of the look that says so.")
    worst: Level = Field(description="Of all looks.")
    worst_step: int = Field(description="The first look that was as bad.")
    slices: tuple[Slice, ...] = Field(description="At `step`, each beside its base; never averaged.")
    thresholds: tuple[Threshold, ...]
    frontier: tuple[FrontierPoint, ...] = Field(description="States with both a validation and a look, by step.")
    looks: int
    seconds: float = Field(description="Of all looks.")


class Evidence(Record):
    """What is known of a run after it ended; `rankwise eval` adds the evaluation."""

    version: Literal[1] = 1
    plan_hash: str
    steps: int
    max_steps: int
    first_loss: float | None = Field(description="Training loss of the first step, nats per token.")
    final_loss: float | None = Field(description="Training loss of the last step, nats per token.")
    base_validation_loss: float | None
    best_validation_loss: float | None
    best_validation_step: int | None
    final_validation_loss: float | None
    tokens: int = Field(description="Tokens trained on.")
    train_seconds: float | None
    padding_share: float | None = Field(None, description="Of the tokens that went through the model; None: unknown.")
    overhead_share: float | None = Field(
        None, description="Of the seconds of all steps: outside of forward, backward and update; None: unknown."
    )
    forgetting: Forgotten | None = Field(None, description="None: nobody looked.")
    actuals: tuple[Actual, ...]
    findings: tuple[Finding, ...]
    evaluation: Evaluation | None
    spectrum: SpectrumSummary | None = Field(None, description="Of what trained; None: no spectrum was taken.")
    benchmarks: Benchmarks | None = Field(None, description="What `rankwise eval --tasks` found.")
