"""What every record is: frozen, strict, versioned, hashable. Nothing here or beside it may import torch."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from rankwise.records.shown import Shown

Interval = Annotated[
    tuple[float, float], Field(description="Lower and upper end, in the unit of the number beside it.")
]


class Record(Shown, BaseModel):
    """A value that travels between stages. Never edited after construction: a new value is a new record."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def content_hash(self) -> str:
        """sha256 of the canonical JSON (sorted keys, no spaces): equal content, equal hash, whatever the key order."""
        return content_hash(self.model_dump(mode="json"))


def content_hash(value: Any) -> str:
    """sha256 hex digest of a JSON-able value in canonical form."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
