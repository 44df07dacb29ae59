"""What `rankwise export` wrote, and whether an engine can load what a run published."""

from typing import Literal

from pydantic import Field

from rankwise.records.artifact import Check
from rankwise.records.base import Record


class Exported(Record):
    """A proven artifact in a form that others load."""

    form: Literal["peft", "transformers", "gguf"]
    folder: str | None = Field(description="Where it lies; None for what was only pushed.")
    url: str | None = Field(None, description="Of the repository on the hub.")
    files: tuple[str, ...] = Field(description="Relative to the folder.")
    bytes: int = Field(description="Of all files.")
    predicted_bytes: int = Field(description="Said before the first one was written.")
    checks: tuple[Check, ...] = Field((), description="What was read back and compared.")
    notes: tuple[str, ...] = Field((), description="What a person should know before using it.")


class EngineFit(Record):
    """Can an engine load it? By the engine's own limits, without the engine."""

    engine: Literal["vllm", "ollama"]
    source: str = Field(description="Version of the engine whose limits these are.")
    form: Literal["adapter", "model"] = Field(description="What would be loaded.")
    loads: bool
    options: tuple[str, ...] = Field(description="What the engine has to be started with.")
    checks: tuple[Check, ...]
    advice: tuple[str, ...] = Field(description="What to do about what does not fit.")
