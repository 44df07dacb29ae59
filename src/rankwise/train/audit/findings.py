"""A finding from the rows that a check does not like."""

from collections.abc import Sequence

from rankwise.errors import DataError
from rankwise.records.audit import AuditFinding, Level, Place
from rankwise.text.formats import Row
from rankwise.text.masks import Encoded

FEW = 5  # places that are named; the count is whole


def finding(
    check: str,
    level: Level,
    found: Sequence[Row | Encoded | DataError],
    of: int,
    text: str,
    fix: str,
    unit: str = "rows",
) -> list[AuditFinding]:
    """One finding, or none where nothing was found."""
    if not found:
        return []
    places = tuple(_place(one) for one in found[:FEW])
    return [
        AuditFinding(check=check, level=level, count=len(found), of=of, unit=unit, text=text, fix=fix, places=places)
    ]


def _place(one: Row | Encoded | DataError) -> Place:
    return Place.model_validate({"path": one.path, "line": one.line or 0})
