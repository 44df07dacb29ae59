"""Curves made of characters."""

from collections.abc import Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-~=+*#"  # where the terminal knows no other signs


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """One character a value, the lowest sign for the lowest value; the means of neighbours where there are more values
    than characters. Equal values are a flat line.
    """
    signs = ASCII if ascii_only else BLOCKS
    return "".join(signs[level] for level in _levels(shrunk(values, width), len(signs)))


def chart(values: Sequence[float], width: int, height: int, *, ascii_only: bool = False) -> list[str]:
    """The same as columns, `height` lines high, the highest line first."""
    signs = ASCII if ascii_only else BLOCKS
    levels = _levels(shrunk(values, width), height * len(signs))
    return ["".join(_cell(level - line * len(signs), signs) for level in levels) for line in reversed(range(height))]


def _cell(level: int, signs: str) -> str:
    """The part of a column that lies in one line."""
    return " " if level < 0 else signs[min(level, len(signs) - 1)]


def shrunk(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values: the means of as many parts of nearly equal size."""
    if len(values) <= width:
        return list(values)
    ends = [round(i * len(values) / width) for i in range(width + 1)]
    parts = [values[a:b] for a, b in pairwise(ends)]
    return [sum(part) / len(part) for part in parts]


def _levels(values: Sequence[float], count: int) -> list[int]:
    """Each value as one of `count` levels between the lowest and the highest."""
    if not values:
        return []
    low, high = min(values), max(values)
    if high <= low:
        return [0] * len(values)
    return [min(count - 1, int((value - low) / (high - low) * count)) for value in values]
