"""Events: the things a run can say, one JSON line each in events.jsonl. The loop tells, it does not ask."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from rankwise.records.base import Interval, Record


class BaseEvent(Record):
    time: str = Field(description="UTC, ISO 8601.")


class Started(BaseEvent):
    """The loop is about to take its first step of this process."""

    event: Literal["started"] = "started"
    plan_hash: str
    step: int = Field(description="0, or the step of the checkpoint that is resumed.")
    max_steps: int
    trainable_params: int
    total_params: int
    world_size: int = Field(description="Processes.")
    engine: str = Field("one process", description="What wraps the model: the class that was found, not the one asked.")
    local_params: int | None = Field(None, description="Parameters that one process holds; all of them unless split.")
    threads: int
    device: str
    versions: dict[str, str]
    load_seconds: float | None = Field(None, description="From the start of the process to the model being ready.")
    adapter_r: int | None = Field(None, description="Rank found on the model; None: no LoRA, or not one for all.")
    adapter_scaling: float | None = Field(
        None, description="Factor of B A found on the model, alpha / r as a rule; None: no LoRA, or not one for all."
    )


class Step(BaseEvent):
    """One optimizer step."""

    event: Literal["step"] = "step"
    step: int = Field(description="Counted from 1.")
    epoch: float
    loss: float = Field(description="Mean over this step's supervised tokens, nats per token.")
    grad_norm: float = Field(description="Before clipping.")
    learning_rate: float
    tokens: int = Field(description="Tokens of this step, no padding counted.")
    supervised_tokens: int
    padding_tokens: int | None = Field(None, description="Tokens computed for nothing; None in older runs.")
    seconds: float = Field(description="Wall clock of this step.")
    model_seconds: float | None = Field(
        None, description="Of them, in forward, backward and update; None in older runs."
    )


class Validation(BaseEvent):
    """Loss on held-out rows; step 0 is the untouched base."""

    event: Literal["validation"] = "validation"
    step: int
    loss: float = Field(description="Nats per supervised token.")
    supervised_tokens: int
    seconds: float
    fact_tokens: int | None = Field(
        None,
        description="Of these, in names and numbers that the text before has not said; None: not known.",
    )
    fact_accuracy: float | None = Field(
        None, description="Share of those whose likeliest token is the right one; None: there are none, or not known."
    )
    other_accuracy: float | None = Field(None, description="The same share of all other supervised tokens.")


class Rehearsed(BaseEvent):
    """What would fail late was tried early: after the first step, when the optimizer has its state."""

    event: Literal["rehearsed"] = "rehearsed"
    accumulation_gap: float | None = Field(
        description="Relative difference of the gradient of some rows one by one and at once; null: not tried."
    )
    longest: tuple[int, int] = Field(description="Rows and padded tokens a row of the largest forward pass of the run.")
    checkpoint_bytes: int
    peak_memory_bytes: int | None = Field(description="Peak of the process until then.")
    seconds: float


Level = Literal["green", "amber", "red", "unknown"]


class Slice(Record):
    """One measure of general ability beside that of the untouched base on the same items; slices are never averaged."""

    name: str = Field(description="The set of rows or questions, or the task of lm-evaluation-harness.")
    metric: Literal["general_loss", "choice"] = Field(description="Cross-entropy, or choice by likelihood.")
    unit: str = Field(description="nats per token, or share.")
    items: int = Field(description="Rows or questions.")
    baseline: float = Field(description="Of the untouched base.")
    value: float
    difference: float = Field(description="value - baseline.")
    interval: Interval = Field(description="Of the difference: 95 %, paired bootstrap over items.")
    level: Level


class Watched(BaseEvent):
    """What the model still has of what its base could do."""

    event: Literal["watched"] = "watched"
    step: int
    slices: tuple[Slice, ...]
    level: Level = Field(description="The worst of the slices.")
    kl: float | None = Field(
        description="KL(base || tuned) on prompts of the task, nats per token; None: not measured."
    )
    seconds: float


class Acted(BaseEvent):
    """What was done because the forgetting watch is red."""

    event: Literal["acted"] = "acted"
    step: int
    action: Literal["warn", "lower_lr", "stop", "rollback"]
    reason: str
    learning_rate_factor: float | None = Field(
        None, description="By which the learning rate is multiplied from now on."
    )
    back_to: int | None = Field(None, description="Step of the checkpoint whose weights are in place again.")


class ModuleSpectrum(Record):
    """The update of one weight matrix, seen by its singular values."""

    module: str
    rank: int = Field(description="Largest rank that the update can have.")
    norm: float = Field(description="Frobenius norm of the update.")
    norm_ratio: float | None = Field(description="Over the norm of the base's weight; None: the base was not read.")
    effective_rank: float | None = Field(description="exp of the entropy of the energies; None: the update is zero.")
    effective_rank_interval: Interval | None = Field(
        None, description="Its bounds, where only the strongest directions were computed; None: all were."
    )
    first_energy: float | None = Field(description="Share of the energy in the first direction; None: zero update.")
    intruders: int | None = Field(description="Directions far from all of the base's; None: the base was not read.")
    condition_a: float | None = Field(description="Condition number of A; None: no adapter, or a singular A.")
    condition_b: float | None


class SpectrumSeen(BaseEvent):
    """The spectra of all trained matrices."""

    event: Literal["spectrum"] = "spectrum"
    step: int
    modules: tuple[ModuleSpectrum, ...]
    seconds: float


class Saved(BaseEvent):
    event: Literal["saved"] = "saved"
    step: int
    checkpoint: str = Field(description="Folder, relative to the run.")
    bytes: int
    seconds: float
    removed: tuple[str, ...] = Field(description="Older checkpoints deleted by the retention rule.")


class Note(BaseEvent):
    """Something a person should read, e.g. how many rows were too long."""

    event: Literal["note"] = "note"
    text: str


class Stopped(BaseEvent):
    event: Literal["stopped"] = "stopped"
    step: int
    reason: str


class Finished(BaseEvent):
    event: Literal["finished"] = "finished"
    step: int
    peak_memory_bytes: int | None = Field(description="Peak of the process (RSS on CPU, reserved on GPU).")


class Failed(BaseEvent):
    event: Literal["failed"] = "failed"
    what: str
    expected: str
    fix: str
    out_of_memory_rows: int | None = Field(
        None, description="In one forward pass, where fewer of them may fit; None: something else failed."
    )


Event = Annotated[
    Started
    | Step
    | Validation
    | Watched
    | Acted
    | SpectrumSeen
    | Rehearsed
    | Saved
    | Note
    | Stopped
    | Finished
    | Failed,
    Field(discriminator="event"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
