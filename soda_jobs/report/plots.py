"""Small line charts as SVG text, from numbers. Pure; colours are CSS classes, so a page themes and prints them.

Written by hand rather than by matplotlib: its import costs a second and its SVG fixes colours and fonts, which
a page that follows the reader's dark or light scheme cannot use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A chart's size and the room around its axes, in px."""

    width: int
    height: int
    left: int = 30
    right: int = 38
    top: int = 12
    bottom: int = 22

    def x(self, share: float) -> float:
        return self.left + share * (self.width - self.left - self.right)

    def y(self, share: float) -> float:
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)


SMALL = Box(230, 150)
LARGE = Box(500, 300, left=36)


def scores(
    points: Sequence[tuple[int, float, float, float]], *, rounds: int, top: float, alt: str, box: Box = SMALL
) -> Markup:
    """Value per round with its confidence band; `points` are (round, value, low, high), y runs from 0 to `top`."""
    last = max(rounds, 1)
    ticks = [(share * top, f"{share * top:g}") for share in (0, 0.25, 0.5, 0.75, 1)]
    parts = _grid(box, ticks, top)
    for round_ in range(last + 1):
        parts.append(text(box.x(round_ / last), box.height - 6, str(round_), "tick", "middle"))
    place = [(box.x(round_ / last), box.y(value / top)) for round_, value, _, _ in points]
    if len(points) > 1:
        upper = [(box.x(round_ / last), box.y(high / top)) for round_, _, _, high in points]
        lower = [(box.x(round_ / last), box.y(low / top)) for round_, _, low, _ in points]
        parts.append(f'<polygon class="band" points="{_path([*upper, *reversed(lower)])}"/>')
        parts.append(f'<polyline class="line" points="{_path(place)}"/>')
    elif points:
        round_, _, low, high = points[0]
        x, y1, y2 = box.x(round_ / last), box.y(low / top), box.y(high / top)
        parts.append(f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>')
    for index, ((x, y), point) in enumerate(zip(place, points, strict=True)):
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        if index == len(points) - 1:
            parts.append(text(x + 7, y + 4, f"{point[1]:.2f}", "value", "start"))
    return _svg(box, parts, alt)


def curve(points: Sequence[Point], *, alt: str, box: Box = SMALL) -> Markup:
    """A value over optimizer steps, y from 0 (or the least value, when below) to the largest."""
    if not points:
        return _svg(box, [], alt)
    low, high = min(0.0, *(y for _, y in points)), max(0.0, *(y for _, y in points))
    height, last = (high - low) or 1.0, points[-1][0] or 1
    parts = _grid(box, [(low - low, f"{low:.3g}"), (height, f"{high:.3g}")], height)
    place = [(box.x(x / last), box.y((y - low) / height)) for x, y in points]
    parts.append(f'<polyline class="line" points="{_path(place)}"/>')
    parts.append(text(box.left, box.height - 6, "0", "tick", "middle"))
    parts.append(text(box.x(1), box.height - 6, f"{last:,.0f} steps", "tick", "end"))
    x, y = place[-1]
    parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    parts.append(text(x + 6, y + 4, f"{points[-1][1]:.2f}", "value", "start"))
    return _svg(box, parts, alt)


def _grid(box: Box, ticks: Sequence[tuple[float, str]], top: float) -> list[str]:
    parts = []
    for value, label in ticks:
        y = box.y(value / top)
        kind = "axis" if value == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{box.left}" x2="{box.x(1):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(box.left - 6, y + 4, label, "tick", "end"))
    return parts


def text(x: float, y: float, words: str, kind: str, anchor: str) -> str:
    """A label at a point; `anchor` is start, middle or end."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _path(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _svg(box: Box, parts: Sequence[str], alt: str) -> Markup:
    """`alt` is what a reader who cannot see the chart is told."""
    head = f'<svg viewBox="0 0 {box.width} {box.height}" role="img" aria-label="{escape(alt)}">'
    return Markup("".join((head, f"<title>{escape(alt)}</title>", *parts, "</svg>")))
