"""What the spectra of a run come to, and what a run that others made was found to be."""

from typing import Literal

from pydantic import Field

from rankwise.records.base import Interval, Record
from rankwise.records.event import ModuleSpectrum
from rankwise.records.evidence import Comparison, Finding, Forgotten
from rankwise.records.spectra import SpectrumSummary


class TruncatedRank(Record):
    """The adapter cut to its strongest directions."""

    rank: int
    loss: float = Field(description="Held-out, nats per token.")
    difference: float = Field(description="Loss - that of the whole adapter.")
    interval: Interval = Field(description="Of the difference: 95 %, paired bootstrap over rows.")
    kept: float | None = Field(description="Share of the gain over the base that is left; None: there was no gain.")
    kept_interval: Interval | None


class Truncation(Record):
    """Held-out loss of an adapter cut to ever fewer directions by truncated SVD."""

    rows: int
    full_rank: int = Field(description="The largest that its products have.")
    base_loss: float = Field(description="Of the untouched base, nats per token.")
    full_loss: float = Field(description="Of the whole adapter.")
    gain: float = Field(description="base_loss - full_loss.")
    gain_interval: Interval
    ranks: tuple[TruncatedRank, ...]
    source: str
    seconds: float


class Shrunk(Record):
    """An adapter of fewer directions that was written."""

    folder: str
    rank: int
    adapter_bytes: int
    passed: bool = Field(description="Did it pass the proof of an artifact?")


class Watching(Record):
    """What `rankwise watch FOLDER` says."""

    version: Literal[1] = 1
    folder: str
    kind: Literal["run", "trainer", "adapter", "model"] = Field(
        description="A run of ours, output of transformers' Trainer, a PEFT adapter, or a whole model."
    )
    method: str = Field(description="Ours by our name, another's by PEFT's or its class's.")
    step: int | None = Field(description="Of the weights that were looked at; None: nobody wrote it down.")
    base: str | None = Field(description="Folder of the base; None: it was not read.")
    matched: str = Field(description="How it was made sure that the base is the right one.")
    spectrum: SpectrumSummary | None
    no_spectrum: str | None = Field(description="Why there is none; None: there is one.")
    modules: tuple[ModuleSpectrum, ...] = Field(description="Of the weights that were looked at.")
    comparisons: tuple[Comparison, ...] = Field(description="Of tuned and base on the task's rows that were given.")
    forgetting: Forgotten | None = Field(None, description="General ability beside the base's; None: nobody asked.")
    truncation: Truncation | None = None
    shrunk: Shrunk | None = None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    seconds: float
