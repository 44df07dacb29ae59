"""Diagnosis: is what is missing a way of talking, or knowledge? Measured on the base model before anything trains."""

from typing import Literal

from pydantic import Field

from rankwise.records.base import Interval, Record

Conclusion = Literal["style", "knowledge", "both", "prompting", "cannot tell"]


class Measurement(Record):
    """One number with its 95 % interval."""

    value: float
    interval: Interval
    unit: str = Field(description="share, nats per token, tokens, ratio or correlation.")
    items: int = Field(description="Rows, questions or tokens that it was measured on.")
    source: str = Field(description="What was asked, how it was scored, how the interval was made.")


class Condition(Record):
    """The base model asked in one way. None: not measured, with the reason in the notes of the diagnosis."""

    name: str = Field(description="zero-shot, few-shot-1, few-shot-4, few-shot-8 or with-source.")
    measurements: dict[str, Measurement] = Field(
        description="format, exact_match, facts, facts_paraphrased, facts_choice, calibration_error, loss, loss_names "
        "(answer tokens of names and numbers that the question does not say), loss_rest, loss_own (those names and "
        "numbers that no example shows): those that were measured."
    )


class Shown(Record):
    """An example that stood in the prompt."""

    question: str
    answer: str


class Diagnosis(Record):
    """What the base lacks on this data, and how much of that prompting already closes."""

    version: Literal[1] = 1
    conclusion: Conclusion = Field(description="prompting: examples in the prompt already close the gap.")
    behaviour: Measurement | None = Field(
        description="Share of the zero-shot loss on held-out answers that examples close; None without examples."
    )
    knowledge: Measurement | None = Field(
        description="Share that only the source answers: of closed-book questions that training rows answer, or of the "
        "zero-shot loss on names and numbers of a row's own; None where held-out answers have none."
    )
    prompting: Measurement | None = Field(
        description="Share of answers that are as the job's `format` wants them after examples; None where not checked."
    )
    base_loss: Measurement = Field(description="Nats per supervised token that the base does not know; need in bits.")
    reasons: tuple[str, ...] = Field(description="The sentences that lead to the conclusion, with their numbers.")
    would_tell: tuple[str, ...] = Field((), description="cannot tell: what would tell.")
    conditions: tuple[Condition, ...]
    examples: tuple[Shown, ...] = Field((), description="Those of the first draw, in the order of the prompt.")
    rows: int = Field(description="Held-out rows that were asked.")
    seconds: float
    base_hash: str | None
    data_hash: str
    notes: tuple[str, ...]
