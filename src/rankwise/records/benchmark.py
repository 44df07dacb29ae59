"""Benchmarks: what a task of lm-evaluation-harness said of one model, and of the tuned one beside its base."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from rankwise.records.base import Interval, Record


def _numbers(value: Any) -> Any:
    return tuple(float(part) for part in value.split()) if isinstance(value, str) else value


def _text(value: tuple[float, ...]) -> str:
    return " ".join(repr(float(number)).removesuffix(".0") for number in value)


# One line in a file, however many items: MMLU has 14,042.
Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers), PlainSerializer(_text, return_type=str)]
Aggregation = Literal["mean", "perplexity", "bits_per_byte", "subtasks", "other"]


class BenchmarkScore(Record):
    """One metric of one task, or of a group of tasks, for one model, as lm-evaluation-harness reckons it."""

    task: str = Field(description="Task or group, by the harness's name.")
    metric: str = Field(description="acc, acc_norm, exact_match, word_perplexity, ... by the harness's name.")
    filter: str = Field(description="What is done to an answer before it is scored; `none`: it is taken as it is.")
    unit: str = Field(description="share, perplexity, bits per byte, or score where the harness says no more.")
    value: float
    stderr: float | None = Field(description="The harness's standard error; None: it has none for this metric.")
    interval: Interval | None = Field(description="Of the value: 95 %; None: unknown.")
    higher_is_better: bool | None = Field(description="None: the task does not say.")
    items: int = Field(description="Documents that were scored.")
    limit: int | None = Field(description="Documents asked for at most, of each task; None: all.")
    num_fewshot: int | None = Field(description="Solved examples before each item; None: the group's tasks differ.")
    chat_template: bool = Field(description="Whether prompts were rendered by the chat template.")
    seed: int = Field(description="Of the few-shot examples.")
    version: str | None = Field(description="Of the task; None: it says none.")
    data_hash: str = Field(description="sha256 of the items and of how they are asked and scored.")
    harness: str = Field(description="Version of lm-evaluation-harness.")
    aggregation: Aggregation = Field(description="How outcomes become the value: see `outcomes`.")
    outcomes: Numbers = Field(
        description="Of each item in order: its score (mean) or log-likelihood in nats (perplexity, bits_per_byte); "
        "empty where the harness keeps no number an item."
    )
    weights: Numbers = Field(description="Of each item: 1, or its words or bytes.")
    subtasks: dict[str, float] = Field(description="Of a group: the weight of each task in it; empty for a task.")


class BenchmarkScores(Record):
    """What one task, or one group of tasks, gave on one model; a group comes before its tasks."""

    scores: tuple[BenchmarkScore, ...]
    notes: tuple[str, ...] = Field(description="What the harness warned of.")


class BenchmarkResult(Record):
    """A score of the tuned model beside that of its untouched base on the same items."""

    base: BenchmarkScore | None = Field(description="None: there is no base to compare with.")
    tuned: BenchmarkScore
    difference: float | None = Field(description="tuned - base.")
    interval: Interval | None = Field(description="Of the difference: 95 %; None: unknown.")
    answer: Literal["better", "worse", "cannot tell"] | None = Field(description="None: nothing to compare with.")
    source: str = Field(description="How the interval of the difference was computed.")


class BenchmarkFailure(Record):
    """A task that gave no result, and what would mend it."""

    task: str
    what: str
    expected: str
    fix: str


class Benchmarks(Record):
    """What `rankwise eval --tasks` found; tasks asked later are added."""

    results: tuple[BenchmarkResult, ...]
    failures: tuple[BenchmarkFailure, ...]
    notes: tuple[str, ...] = Field(description="What the harness warned of.")
    seconds: float = Field(description="Of the last call, loading included.")
