"""Numbers as text, each with its unit: one function per quantity, `unknown` where a number is missing."""

from collections.abc import Callable

UNKNOWN = "unknown"
SIZE_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))
FLOP_UNITS = (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6))
TIME_UNITS = (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0), ("s", 1.0))
Scale = tuple[str, float]


def plain(value: float | None) -> str:
    """Three significant digits, thousands separated: 1,234 · 12.3 · 0.0012."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def count(value: float | None) -> str:
    """Whole things: 134,515,008."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def size_scale(largest: float) -> Scale:
    """The decimal unit in which `largest` bytes reads best; for a column that shares one unit."""
    return next((s for s in SIZE_UNITS if abs(largest) >= 0.9995 * s[1]), SIZE_UNITS[-1])


def size(value: float | None, scale: Scale | None = None) -> str:
    """Bytes, decimal: 1.9 GB · 424 MB. With `scale`, in that unit whatever the size."""
    if value is None:
        return UNKNOWN
    name, factor = scale or size_scale(value)
    number = value / factor
    text = f"{number:,.0f}" if abs(number) >= 99.95 or factor == 1 else f"{number:.1f}"
    if text == "0.0" and number:
        text = f"{number:.1g}"  # a small adapter beside large models is small, not nothing
    return f"{text} {name}"


def size_range(interval: tuple[float, float] | None) -> str:
    """1.7 to 2.3 GB."""
    if interval is None:
        return UNKNOWN
    scale = size_scale(interval[1])
    return f"{size(interval[0], scale).rsplit(' ', 1)[0]} to {size(interval[1], scale)}"


def duration(seconds: float | None) -> str:
    """0.4 s · 12 s · 2 min 31 s · 3 h 5 min · 2 d 4 h."""
    if seconds is None:
        return UNKNOWN
    if seconds < 9.95:
        return f"{seconds:.2g} s" if seconds < 0.1 else f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return _two(whole // 60, "min", whole % 60, "s")
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return _two(minutes // 60, "h", minutes % 60, "min")
    hours = round(seconds / 3_600)
    return _two(hours // 24, "d", hours % 24, "h")


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large:,} {large_unit}" + (f" {small} {small_unit}" if small else "")


def duration_range(interval: tuple[float, float] | None) -> str:
    """1.1 to 4.3 min."""
    if interval is None:
        return UNKNOWN
    name, factor = next((u for u in TIME_UNITS if interval[1] >= 1.5 * u[1]), TIME_UNITS[-1])
    return f"{_short(interval[0] / factor)} to {_short(interval[1] / factor)} {name}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")


def usd(value: float | None) -> str:
    """12.50 USD."""
    if value is None:
        return UNKNOWN
    if 0 < value < 0.01:
        return "under 0.01 USD"
    return f"{value:,.0f} USD" if value >= 1000 else f"{value:,.2f} USD"


def usd_range(interval: tuple[float, float] | None) -> str:
    """20.87 to 28.64 USD."""
    if interval is None:
        return UNKNOWN
    return f"{usd(interval[0]).removesuffix(' USD')} to {usd(interval[1])}"


def flop_scale(largest: float) -> Scale:
    """The unit in which `largest` floating-point operations read best."""
    return next((s for s in FLOP_UNITS if abs(largest) >= 0.9995 * s[1]), FLOP_UNITS[-1])


def flops(value: float | None) -> str:
    """Floating-point operations, a multiply-add counted as two: 21.4 TFLOP · 1.31 PFLOP."""
    if value is None:
        return UNKNOWN
    if not value:
        return "0"
    name, factor = flop_scale(value)
    return f"{plain(value / factor)} {name}"


def rate(tokens_per_second: float | None) -> str:
    """210 tokens/s."""
    return UNKNOWN if tokens_per_second is None else f"{plain(tokens_per_second)} tokens/s"


def share(value: float | None) -> str:
    """A share of one as percent: 41 % · 0.4 % · 99.6 %."""
    return UNKNOWN if value is None else f"{_percent(value)} %"


def _percent(value: float) -> str:
    near_an_end = 0 < abs(value) < 0.01 or 0.99 < value < 1
    if near_an_end and 0.0005 <= abs(value) < 0.9995:
        return f"{value * 100:.1f}"
    if near_an_end:
        return "below 0.1" if value < 0.5 else "above 99.9"
    return f"{value * 100:.0f}"


def points(difference: float | None) -> str:
    """A difference of shares: +97 points."""
    return UNKNOWN if difference is None else f"{_signed_points(difference)} points"


def _signed_points(difference: float) -> str:
    return f"{difference * 100:+.1f}" if 0 < abs(difference) < 0.00995 else f"{round(difference * 100):+d}"


def nats(value: float | None) -> str:
    """Cross-entropy per token: 0.031 nats."""
    return UNKNOWN if value is None else f"{value:.3f} nats"


def signed_nats(difference: float | None) -> str:
    """A difference of cross-entropies: -0.012 nats."""
    return UNKNOWN if difference is None else f"{difference:+z.3f} nats"


def learning_rate(value: float | None) -> str:
    """0.0002 · 5e-06."""
    return UNKNOWN if value is None else f"{value:.3g}"


def short_hash(value: str | None) -> str:
    """The first 12 digits of a hash."""
    return UNKNOWN if not value else value[:12]


def measured(value: float | None, unit: str) -> str:
    """A number of an evaluation in its unit: 41 % · 0.031 nats · 31.2 tokens · 1.4 times · 0.31."""
    if unit == "share":
        return share(value)
    if unit.startswith("nats"):
        return nats(value)
    return _with_unit(plain(value), unit)


def difference(value: float | None, unit: str) -> str:
    """A signed difference of a Comparison: +97 points · -0.012 nats · +0.31 of a score."""
    if unit == "share":
        return points(value)
    if unit.startswith("nats"):
        return signed_nats(value)
    return UNKNOWN if value is None else _with_unit(f"{value:+.3g}", unit)


def _with_unit(number: str, unit: str) -> str:
    """Scores and correlations are bare numbers."""
    return {"ratio": f"{number} times", "tokens": f"{number} tokens"}.get(unit, number)


def bounds(interval: tuple[float, float] | None, unit: str, *, signed: bool = False) -> str:
    """The ends of an interval without their unit: 31 to 52 · -3 to +3."""
    if interval is None:
        return UNKNOWN
    write: Callable[[float], str]
    if unit == "share":
        write = _signed_points if signed else _percent
    elif unit == "tokens":
        write = "{:.1f}".format
    else:
        write = "{:+z.3f}".format if signed else "{:z.3f}".format
    return f"{write(interval[0])} to {write(interval[1])}"


def with_interval(value: float | None, interval: tuple[float, float] | None, unit: str) -> str:
    """41 % (95 %: 31 to 52)."""
    text = measured(value, unit)
    return text if interval is None or value is None else f"{text} (95 %: {bounds(interval, unit)})"


def common_scale(values: list[float], unit: str) -> Scale:
    """One unit for numbers that are read side by side: seconds, bytes and FLOP are scaled, other units stay."""
    largest = max(map(abs, values), default=0.0)
    if unit in ("s", "seconds"):
        return next((u for u in TIME_UNITS[1:3] if largest >= 10 * u[1]), TIME_UNITS[-1])
    if unit in ("B", "bytes"):
        return size_scale(largest)
    if unit == "FLOP":
        return flop_scale(largest)
    return (unit, 1.0)
