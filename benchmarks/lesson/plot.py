"""Plots as SVG, written by hand: points and lines on two axes, of which each may be logarithmic."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 420, 70, 24, 210, 52
COLOURS = ("#c0392b", "#e67e22", "#2471a3", "#1e8449", "#7d3c98", "#616a6b", "#b7950b", "#17a589")
TICKS = 5
Point = tuple[float, float]
Lines = Sequence[tuple[str, Sequence[Point]]]  # name and points; lines of one name have one colour


@dataclass(frozen=True)
class Axes:
    """What stands at the axes, and which of them are logarithmic."""

    x: str
    y: str
    log_x: bool = False
    log_y: bool = False


def plots(result: Mapping[str, Any]) -> dict[str, str]:
    """File name -> SVG; of an experiment that has not run the axes alone."""
    makers = {"X2": _facts, "X3": _forgetting, "X4": _replay, "X6": _alpha, "X8": _cuts}
    return dict(make(result["experiments"][name]["table"]) for name, make in makers.items())


def _facts(table: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    names = list(dict.fromkeys(row["arm"] for row in table))
    lines = [(n, [(row["bits asked"], row["bits stored"]) for row in table if row["arm"] == n]) for n in names]
    return "x2-facts.svg", draw(lines, Axes("bits of new facts asked", "bits stored", log_x=True))


def _forgetting(table: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    axes = Axes("held-out loss of the task, nats per token", "rise of the general loss, nats per token", log_x=True)
    return "x3-forgetting.svg", draw([(_arm(row), curve) for row in table for curve in row["curves"]], axes)


def _arm(row: Mapping[str, Any]) -> str:
    return f"{row['arm']}, {row['rate']:g}"


def _replay(table: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    points = [(row["share asked, %"], row["rise of the general loss, nats a token"]) for row in table]
    axes = Axes("replay, % of supervised tokens", "rise of the general loss, nats per token")
    return "x4-replay.svg", draw([("rank 1, high rate", points)], axes)


def _alpha(table: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    axes = Axes("learning rate", "loss after the last step, nats per token", log_x=True, log_y=True)
    return "x6-alpha.svg", draw([(f"r = {r['r']}, alpha {r['alpha']:g}", r["curve"]) for r in table], axes)


def _cuts(table: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    axes = Axes("directions of each matrix that are kept", "share of the whole difference's quality", log_x=True)
    return "x8-cuts.svg", draw([(row["what"], row["curve"]) for row in table if row["curve"]], axes)


def draw(lines: Lines, axes: Axes) -> str:
    """The drawing. Points that a logarithmic axis does not have are left out."""
    usable = [(name, [p for p in points if _has(p, axes)]) for name, points in lines]
    every = [point for _, points in usable for point in points]
    across, up = _Scale([x for x, _ in every], axes.log_x), _Scale([y for _, y in every], axes.log_y)

    def at(point: Point) -> Point:
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return LEFT + across.share(point[0]) * width, HEIGHT - BOTTOM - up.share(point[1]) * height

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for number in range(TICKS + 1):
        x, y = across.value(number / TICKS), up.value(number / TICKS)
        left, level = at((x, y))
        parts.append(_text(left, HEIGHT - BOTTOM + 18, f"{x:.2g}", "middle"))
        parts.append(_text(LEFT - 8, level + 4, f"{y:.2g}", "end"))
        parts.append(f'<path d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}" stroke="#eeeeee"/>')
    names = list(dict.fromkeys(name for name, _ in usable))
    for name, points in usable:
        parts += _line([at(point) for point in points], COLOURS[names.index(name) % len(COLOURS)])
    for number, name in enumerate(names):
        row, colour = TOP + 20 + 20 * number, COLOURS[number % len(COLOURS)]
        parts.append(f'<circle cx="{WIDTH - RIGHT + 16}" cy="{row - 4}" r="4" fill="{colour}"/>')
        parts.append(_text(WIDTH - RIGHT + 26, row, name, "start"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, axes.x, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<g transform="rotate(-90 16 {middle})">{_text(16, middle, axes.y, "middle")}</g>')
    return "\n".join([*parts, "</svg>", ""])


class _Scale:
    """Values of one axis -> shares of its length."""

    def __init__(self, values: Sequence[float], log: bool):
        self.log = log
        turned = [math.log(v) if log else v for v in values]
        self.low, self.high = min(turned, default=0.0), max(turned, default=0.0)

    def share(self, value: float) -> float:
        turned = math.log(value) if self.log else value
        return (turned - self.low) / ((self.high - self.low) or 1.0)

    def value(self, share: float) -> float:
        turned = self.low + share * (self.high - self.low)
        return math.exp(turned) if self.log else turned


def _has(point: Point, axes: Axes) -> bool:
    return (point[0] > 0 or not axes.log_x) and (point[1] > 0 or not axes.log_y)


def _line(places: Sequence[Point], colour: str) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    circles = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.3"/>', *circles]


def _text(x: float, y: float, said: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'
