"""Which documents share a row: best-fit decreasing, deterministic."""

from bisect import bisect_left, insort
from collections.abc import Sequence


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `lengths` by row: the longest first, each into the fullest row that still has room for it.

    Uses at most 11/9 of the fewest rows plus 4 (Johnson 1974, best-fit decreasing bin packing). Equal lengths keep
    their order, so that the rows follow from the lengths alone.

    Args:
        lengths: tokens of each document. capacity: tokens of a row; a longer document has a row of its own.
    """
    rows: list[list[int]] = []
    spaces: list[tuple[int, int]] = []  # (free tokens, row), in ascending order
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        at = bisect_left(spaces, (length, 0))
        if at < len(spaces):
            free, row = spaces.pop(at)
        else:
            free, row = max(capacity, length), len(rows)
            rows.append([])
        rows[row].append(index)
        insort(spaces, (free - length, row))
    return rows
