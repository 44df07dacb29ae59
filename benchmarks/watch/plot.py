"""Plots as SVG, written by hand: points and lines on two linear axes, nothing that a library would have to draw."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 420, 64, 24, 230, 52
COLOURS = ("#c0392b", "#e67e22", "#2471a3", "#1e8449", "#7d3c98")
TICKS = 5
SLICE = "general rows"
Points = list[tuple[float, float]]
Row = Mapping[str, Any]


def frontier_svg(rows: Sequence[Row]) -> str:
    """What was learned (held-out loss, to the left is better) against what was forgotten (below is better)."""
    series = {
        row["arm"]: [(p["task_loss"], p["differences"][SLICE]) for p in row["forgetting"]["frontier"]] for row in rows
    }
    return _svg(
        series,
        "held-out loss of the task, nats per token",
        "rise of the loss on rows that the base wrote, nats per token",
        _limits(rows),
    )


def steps_svg(rows: Sequence[Row]) -> str:
    """Forgetting by step."""
    series = {
        row["arm"]: [
            (look["step"], next(s["difference"] for s in look["slices"] if s["name"] == SLICE)) for look in row["looks"]
        ]
        for row in rows
    }
    return _svg(series, "step", "rise of the loss on rows that the base wrote, nats per token", _limits(rows))


def _limits(rows: Sequence[Row]) -> dict[str, float]:
    limit = next(t for t in rows[0]["forgetting"]["thresholds"] if t["slice"] == SLICE)
    return {"amber": limit["amber"], "red": limit["red"]}


def _svg(series: Mapping[str, Points], x_name: str, y_name: str, limits: Mapping[str, float]) -> str:
    every = [point for points in series.values() for point in points]
    xs = (min(x for x, _ in every), max(x for x, _ in every))
    ys = (min(0.0, *(y for _, y in every)), max(*limits.values(), *(y for _, y in every)))

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / ((xs[1] - xs[0]) or 1.0)
        up = (y - ys[0]) / ((ys[1] - ys[0]) or 1.0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for number in range(TICKS + 1):
        x, y = (low + number / TICKS * (high - low) for low, high in (xs, ys))
        parts.append(_text(at(x, ys[0])[0], HEIGHT - BOTTOM + 18, f"{x:.3g}", "middle"))
        parts.append(_text(LEFT - 8, at(xs[0], y)[1] + 4, f"{y:.3g}", "end"))
        parts.append(_line(at(xs[0], y), at(xs[1], y), "#eeeeee"))
    for name, value in limits.items():
        parts.append(_line(at(xs[0], value), at(xs[1], value), "#999999", dashed=True))
        parts.append(_text(WIDTH - RIGHT + 4, at(xs[1], value)[1] + 4, name, "start"))
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [at(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        row = TOP + 40 + 20 * number
        parts.append(f'<circle cx="{WIDTH - RIGHT + 56}" cy="{row - 4}" r="4" fill="{colour}"/>')
        parts.append(_text(WIDTH - RIGHT + 66, row, name, "start"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_name, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<g transform="rotate(-90 16 {middle})">{_text(16, middle, y_name, "middle")}</g>')
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, said: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def _line(start: tuple[float, float], end: tuple[float, float], colour: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dash}/>'
