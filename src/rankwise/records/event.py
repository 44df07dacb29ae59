"""Events: the things a run can say, one JSON line each in events.jsonl. The loop tells, it does not ask."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from rankwise.records.base import Record


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


Event = Annotated[
    Started | Step | Validation | Rehearsed | Saved | Note | Stopped | Finished | Failed, Field(discriminator="event")
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
