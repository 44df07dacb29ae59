"""Lengths of rows, in bins."""

from collections import Counter
from collections.abc import Sequence


def histogram(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(upper length, rows) with upper lengths 16, 32, 64, …; every bin from the first used to the last."""
    bins = Counter(max(16, 1 << (length - 1).bit_length()) for length in lengths)
    found = []
    upper = min(bins)
    while upper <= max(bins):
        found.append((upper, bins[upper]))
        upper *= 2
    return tuple(found)
