"""A finding from the rows that a check does not like."""

from collections.abc import Iterable

from rankwise.errors import DataError
from rankwise.records.audit import AuditFinding, Level, Place
from rankwise.text.formats import Row
from rankwise.text.masks import Encoded

FEW = 5  # places that are named; the count is whole


class Spots:
    """How many were found, and where the first few stand: of a large file, nothing more is held."""

    def __init__(self, found: Iterable[Row | Encoded | DataError], count: int | None = None):
        """`count`: where `found` are only the first of so many."""
        seen = 0
        self.places: tuple[Place, ...] = ()
        for one in found:
            seen += 1
            if seen <= FEW:
                self.places += (_place(one),)
        self.count = seen if count is None else count

    def __len__(self) -> int:
        return self.count


def finding(
    check: str,
    level: Level,
    found: Spots,
    of: int,
    text: str,
    fix: str,
    unit: str = "rows",
) -> list[AuditFinding]:
    """One finding, or none where nothing was found."""
    if not found:
        return []
    return [
        AuditFinding(
            check=check, level=level, count=len(found), of=of, unit=unit, text=text, fix=fix, places=found.places
        )
    ]


def _place(one: Row | Encoded | DataError) -> Place:
    return Place.model_validate({"path": one.path, "line": one.line or 0})
