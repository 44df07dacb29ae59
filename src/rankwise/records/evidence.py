"""Evidence: what a run showed. Finding: what should be done about it. Comparison: is it better, or can we not tell?"""

from typing import Literal

from pydantic import Field

from rankwise.records.base import Interval, Record
from rankwise.records.benchmark import Benchmarks
from rankwise.records.diagnosis import Measurement
from rankwise.records.event import Level, Slice
from rankwise.records.spectra import SpectrumSummary

# Mean probability of its own tokens from which on an answer counts as confident.
CONFIDENT = 0.7


class Comparison(Record):
    """One metric of two models on the same items, paired item by item."""

    metric: str = Field(
        description="heldout_loss | format | exact_match | refusals | repetition | loops | cut_off | judge | facts | "
        "facts_exact | facts_normalised | facts_f1 | facts_seen | facts_unseen | facts_reversed | facts_choice | "
        "confident_wrong | calibration_error | calibration_error_choice | general_loss, or a metric of the user's own."
    )
    unit: str = Field(description="share, nats per token, or score (of a metric of the user's own).")
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

    kind: Literal["format", "fact", "paraphrase", "reversed"] = Field(
        description="A held-out row, a closed-book question, the same in other words, or asked from its answer."
    )
    prompt: str
    expected: str
    base: str
    tuned: str
    base_ok: bool
    tuned_ok: bool
    base_sure: float | None = Field(
        None, description="Mean probability of the base's own tokens; None: not measured, or it said nothing."
    )
    tuned_sure: float | None = Field(None, description="The same of the tuned model.")


class Bin(Record):
    """Answers whose probability lies in [low, high): the mean probability, and the share that was right."""

    low: float
    high: float
    items: int
    confidence: float | None = Field(description="None where no answer lies here.")
    accuracy: float | None


class Reliability(Record):
    """Is it as sure as it is right? The points of a reliability plot; the errors stand in the comparisons."""

    kind: Literal["answers", "choices"] = Field(
        description="Mean probability of the tokens said, or the probability of the likeliest choice among the choices."
    )
    base: tuple[Bin, ...]
    tuned: tuple[Bin, ...]


class Tendency(Record):
    """Something about the answers of both models that is neither better nor worse by itself."""

    name: str = Field(
        description="answer_length | length_ratio | length_right | refused_facts | length_right_facts | facts_kept."
    )
    base: Measurement | None = Field(description="None where it was not measured.")
    tuned: Measurement | None


class Evaluation(Record):
    """Tuned model against the untouched base it came from, or against another run's model in the base's place."""

    comparisons: tuple[Comparison, ...]
    answers: tuple[Answer, ...]
    reliability: tuple[Reliability, ...] = ()
    tendencies: tuple[Tendency, ...] = ()
    against: str | None = Field(None, description="The run whose model `base` is; None: the untouched base.")
    seconds: float
    notes: tuple[str, ...]


class Gate(Record):
    """A requirement of `rankwise eval --require`, and whether it is met."""

    requirement: str
    name: str = Field(description="What is held against the limit, such as facts or facts.difference.low.")
    comparison: Literal[">=", ">", "<=", "<"]
    limit: float
    value: float | None = Field(description="None: not measured, so the requirement is not met.")
    unit: str | None
    met: bool


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
    against: tuple[Evaluation, ...] = Field((), description="Evaluations against other runs, one of each.")
    spectrum: SpectrumSummary | None = Field(None, description="Of what trained; None: no spectrum was taken.")
    benchmarks: Benchmarks | None = Field(None, description="What `rankwise eval --tasks` found.")
