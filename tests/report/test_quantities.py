"""Every number has a unit, one scale, and `unknown` where it is missing."""

from collections.abc import Callable

import pytest

from rankwise.report import quantities as q

CASES: list[tuple[Callable[..., str], tuple[object, ...], str]] = [
    (q.size, (0,), "0 B"),
    (q.size, (999,), "999 B"),
    (q.size, (1_000,), "1.0 kB"),
    (q.size, (9_790_000,), "9.8 MB"),
    (q.size, (368_000_000,), "368 MB"),
    (q.size, (999_960_000,), "1.0 GB"),
    (q.size, (72_418_000_000,), "72.4 GB"),
    (q.size, (1_234_000_000_000_000,), "1,234 TB"),
    (q.size, (9_790_000, ("GB", 1e9)), "0.01 GB"),
    (q.size_range, ((1.65e9, 2.3e9),), "1.6 to 2.3 GB"),
    (q.duration, (0,), "0 s"),
    (q.duration, (0.042,), "0.042 s"),
    (q.duration, (3.93,), "3.9 s"),
    (q.duration, (59.6,), "1 min"),
    (q.duration, (151,), "2 min 31 s"),
    (q.duration, (3_599.7,), "1 h"),
    (q.duration, (11_100,), "3 h 5 min"),
    (q.duration, (187_200,), "2 d 4 h"),
    (q.duration_range, ((65.0, 260.0),), "1.1 to 4.3 min"),
    (q.duration_range, ((3.0, 20.0),), "3 to 20 s"),
    (q.duration_range, ((7_200.0, 36_000.0),), "2 to 10 h"),
    (q.share, (0.413,), "41 %"),
    (q.share, (0.0,), "0 %"),
    (q.share, (1.0,), "100 %"),
    (q.share, (0.004,), "0.4 %"),
    (q.share, (0.996,), "99.6 %"),
    (q.share, (0.00001,), "below 0.1 %"),
    (q.share, (0.99999,), "above 99.9 %"),
    (q.points, (0.97,), "+97 points"),
    (q.points, (0.0,), "+0 points"),
    (q.points, (-0.004,), "-0.4 points"),
    (q.points, (-0.1,), "-10 points"),
    (q.nats, (0.0312,), "0.031 nats"),
    (q.signed_nats, (-0.012,), "-0.012 nats"),
    (q.signed_nats, (-1e-9,), "+0.000 nats"),
    (q.count, (134_515_008,), "134,515,008"),
    (q.usd, (12.5,), "12.50 USD"),
    (q.usd, (0.001,), "under 0.01 USD"),
    (q.rate, (168.0,), "168 tokens/s"),
    (q.flops, (2.14e13,), "21.4 TFLOP"),
    (q.flops, (1.306e15,), "1.31 PFLOP"),
    (q.flops, (0.0,), "0"),
    (q.learning_rate, (2e-4,), "0.0002"),
    (q.learning_rate, (5e-6,), "5e-06"),
    (q.short_hash, ("0123456789abcdef",), "0123456789ab"),
    (q.plain, (1_234.5,), "1,234"),
    (q.with_interval, (0.41, (0.31, 0.52), "share"), "41 % (95 %: 31 to 52)"),
    (q.with_interval, (1.8, (1.7, 1.9), "nats per token"), "1.800 nats (95 %: 1.700 to 1.900)"),
    (q.with_interval, (0.41, None, "share"), "41 %"),
    (q.difference, (0.97, "share"), "+97 points"),
    (q.difference, (-2.295, "nats per token"), "-2.295 nats"),
]


@pytest.mark.parametrize(("write", "arguments", "expected"), CASES)
def test_number_with_its_unit(write: Callable[..., str], arguments: tuple[object, ...], expected: str) -> None:
    assert write(*arguments) == expected


ONE_NUMBER = [q.size, q.size_range, q.duration, q.duration_range, q.share, q.points, q.nats, q.signed_nats]
ONE_NUMBER += [q.count, q.usd, q.rate, q.learning_rate, q.short_hash, q.plain, q.flops]


def test_a_missing_number_is_unknown() -> None:
    texts = [write(None) for write in ONE_NUMBER]
    assert texts == ["unknown"] * len(ONE_NUMBER)
    assert len(ONE_NUMBER) == 15
    assert q.with_interval(None, (0.0, 1.0), "share") == "unknown"
    assert q.bounds(None, "share") == "unknown"


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ([130.0, 118.0], "s", "s"),
        ([1_300.0], "seconds", "min"),
        ([90_000.0], "seconds", "h"),
        ([1.9e9, 9.8e6], "bytes", "GB"),
        ([3.0], "tokens/s", "tokens/s"),
        ([2.1e14, 3e12], "FLOP", "TFLOP"),
        ([], "bytes", "B"),
    ],
)
def test_numbers_side_by_side_share_a_scale(values: list[float], unit: str, expected: str) -> None:
    assert q.common_scale(values, unit)[0] == expected
