"""Lineage: hashes that lead from what training left back to its data, its base and what it went on from."""

from typing import Literal

from pydantic import Field

from rankwise.records.base import Record


class Lineage(Record):
    """Hashes that lead from a result back to its origin; `lineage.json` beside published weights."""

    job: str
    facts: str
    plan: str
    base_weights: str
    data: str
    chat_template: str | None
    parent: "Parent | None" = Field(None, description="What the weights were before; None: nothing was trained before.")


class Parent(Record):
    """An adapter, or a trained model, that training goes on from."""

    kind: Literal["adapter", "model"]
    folder: str = Field(description="Where it lay.")
    weights: str = Field(description="sha256 of adapter_model.safetensors, or of the model's weight files.")
    lineage: Lineage | None = Field(description="Its own; None where nobody wrote it down.")


class AdapterFacts(Record):
    """An adapter that a job goes on from, as its adapter_config.json says it."""

    folder: str
    method: str = Field(description="A method that trains such an adapter; others may, over a quantised base.")
    r: int | None
    lora_alpha: float | None
    target_modules: str | tuple[str, ...] | None = Field(description="Sorted names, or PEFT's pattern.")
    num_virtual_tokens: int | None
    bottleneck_size: int | None


Lineage.model_rebuild()
