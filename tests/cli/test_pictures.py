"""Curves of characters: as many as asked, the lowest for the lowest, and nothing that is not in the numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.cli.pictures import ASCII, BLOCKS, chart, shrunk, sparkline

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, BLOCKS),
        ([7, 0], 8, "█▁"),
        ([3, 3, 3], 8, "▁▁▁"),
        ([], 8, ""),
        ([0, 0, 8, 8], 2, "▁█"),
    ],
)
def test_sparkline(values: list[float], width: int, drawn: str) -> None:
    assert sparkline(values, width) == drawn


def test_terminals_without_blocks_get_ascii() -> None:
    assert sparkline(range(8), 8, ascii_only=True) == ASCII and ASCII.isascii()


@given(NUMBERS, st.integers(1, 50))
def test_a_sparkline_is_never_wider_than_asked_and_shows_both_ends(values: list[float], width: int) -> None:
    drawn = sparkline(values, width)
    assert len(drawn) == min(len(values), width) and set(drawn) <= set(BLOCKS)
    if len(values) <= width and min(values) < max(values):
        assert drawn[values.index(min(values))] == BLOCKS[0] and drawn[values.index(max(values))] == BLOCKS[-1]


@given(NUMBERS, st.integers(1, 50))
def test_shrinking_keeps_every_value_in_one_mean(values: list[float], width: int) -> None:
    parts = shrunk(values, width)
    assert len(parts) == min(len(values), width)
    slack = 1e-6 * max(1.0, max(map(abs, values)))
    assert min(values) - slack <= min(parts) and max(parts) <= max(values) + slack
    if len(values) % width == 0:
        assert sum(parts) / len(parts) == pytest.approx(sum(values) / len(values), abs=slack)


@given(NUMBERS, st.integers(1, 40), st.integers(1, 8))
def test_a_chart_is_a_sparkline_in_several_lines(values: list[float], width: int, height: int) -> None:
    lines = chart(values, width, height)
    assert len(lines) == height and {len(line) for line in lines} == {min(len(values), width)}
    for column in zip(*lines, strict=True):
        drawn = "".join(column).lstrip(" ")
        assert drawn and set(drawn[1:]) <= {BLOCKS[-1]}, "below the top of a column all is full"


def test_a_chart_has_its_highest_value_at_the_top() -> None:
    assert chart([0, 15], 2, 2) == [" █", "▁█"]
