"""Artifact: files with hashes, where they came from, and the proof that they do what was trained. No proof, no
artifact.
"""

from typing import Literal

from pydantic import Field

from rankwise.records.base import Record
from rankwise.records.lineage import Lineage


class Check(Record):
    """One condition of release."""

    name: str
    passed: bool
    number: str | None = Field(description="What was measured, with its unit.")
    limit: str | None = Field(description="What it had to be.")
    text: str = Field(description="What was compared, in one sentence.")


class Verification(Record):
    passed: bool
    checks: tuple[Check, ...]
    seconds: float


class Artifact(Record):
    version: Literal[1] = 1
    kind: Literal["adapter", "adapter+merged", "model"]
    method: str
    adapter: str | None = Field(description="Folder of the adapter, relative to the run unless absolute.")
    model: str | None = Field(description="Folder of the merged or full model, relative to the run unless absolute.")
    base: str = Field(description="The model it was trained on, as the job names it.")
    license: str | None = Field(description="Licence of the base; None if its card does not say.")
    files: dict[str, str] = Field(description="File -> sha256.")
    verification: Verification
    lineage: Lineage
