"""Lines over time, as an SVG of a few kilobytes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_WIDTH, _HEIGHT = 760, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 232, 30, 26
_COLORS: Final = ("#1f77b4", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#a6761d", "#666666")
_MOST_LINES: Final = 10
_FONT: Final = 'font-family="system-ui, sans-serif" font-size="11"'


@dataclass(frozen=True)
class Line:
    """One series: its name, and pairs of a time and a number that Prometheus spells as text."""

    name: str
    values: Sequence[Sequence[float | str]]

    def points(self) -> list[tuple[float, float]]:
        """Return the pairs that hold a number."""
        pairs = [(float(at), float(value)) for at, value in self.values]
        return [(at, value) for at, value in pairs if math.isfinite(value)]


def draw(title: str, unit: str, lines: Sequence[Line]) -> str:
    """Draw the highest lines of a panel."""
    drawn = sorted((line for line in lines if line.points()), key=lambda line: -max(v for _, v in line.points()))
    # What never happened is left out, unless nothing did.
    drawn = [line for line in drawn if any(value for _, value in line.points())][:_MOST_LINES] or drawn[:1]
    points = [point for line in drawn for point in line.points()]
    first, last = min(at for at, _ in points), max(at for at, _ in points)
    top = _round_up(max(value for _, value in points) or 1.0)
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(at: float) -> float:
        return _LEFT + width * (at - first) / max(last - first, 1.0)

    def y(value: float) -> float:
        return _TOP + height * (1 - value / top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" {_FONT}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="18" font-size="13" font-weight="600" fill="#222">{escape(title)}</text>',
    ]
    for step in range(5):
        value = top * step / 4
        parts.append(
            f'<line x1="{_LEFT}" x2="{_LEFT + width}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#e5e5e5"/>'
        )
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#555">{_spelled(value, unit)}</text>'
        )
    for share in (0, 0.5, 1):
        at = first + (last - first) * share
        passed = f"{share * (last - first):.0f} s"
        parts.append(f'<text x="{x(at):.1f}" y="{_HEIGHT - 8}" text-anchor="middle" fill="#555">{passed}</text>')
    for number, line in enumerate(drawn):
        color = _COLORS[number % len(_COLORS)]
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in line.points())
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        height_of = _TOP + 10 + number * 18
        parts.append(f'<rect x="{_LEFT + width + 12}" y="{height_of - 8}" width="10" height="10" fill="{color}"/>')
        parts.append(f'<text x="{_LEFT + width + 27}" y="{height_of + 1}" fill="#222">{escape(line.name[:36])}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _round_up(value: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * 0.9999)


def _spelled(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
    spelled = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{spelled}{'/s' if unit == 'reqps' else ''}"
