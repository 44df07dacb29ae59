"""Which documents share a row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.train.packing import best_fit_decreasing

LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=60)


@given(LENGTHS, st.integers(16, 128))
def test_each_document_is_in_one_row_that_holds_it(lengths: list[int], capacity: int) -> None:
    rows = best_fit_decreasing(lengths, capacity)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= capacity or len(row) == 1 for row in rows)


@given(LENGTHS)
def test_rows_are_few(lengths: list[int]) -> None:
    """All rows but one are more than half full, else two of them would have been one."""
    rows = best_fit_decreasing(lengths, 64)
    filled = sorted(sum(lengths[i] for i in row) for row in rows)
    assert all(tokens > 32 for tokens in filled[1:])


@pytest.mark.parametrize(
    ("lengths", "capacity", "rows"),
    [
        ([3, 7, 5, 5], 10, [[1, 0], [2, 3]]),
        ([4, 4, 4], 8, [[0, 1], [2]]),
        ([9], 4, [[0]]),  # longer than a row: alone
        ([6, 5, 3, 2], 8, [[0, 3], [1, 2]]),  # 3 goes where it fits best, not where it fits first
    ],
)
def test_the_fullest_row_that_has_room_is_taken(lengths: list[int], capacity: int, rows: list[list[int]]) -> None:
    assert best_fit_decreasing(lengths, capacity) == rows
