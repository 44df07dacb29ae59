"""One parsed value of a data file and where it stands, so that every later fault can be jumped to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise.errors import DataError


@dataclass(frozen=True)
class Record:
    """One parsed value, not yet judged, and the 1-based line of `path` on which it starts (parquet, arrow: its row)."""

    path: Path
    line: int
    value: Any

    def fault(self, what: str, *, expected: str = "", fix: str = "") -> DataError:
        """An error that points at this record."""
        return DataError(self.path, self.line, what, expected=expected, fix=fix)


def shown(value: Any, width: int = 60) -> str:
    """A value short enough (in characters) for an error's sentence."""
    text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."
