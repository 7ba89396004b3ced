"""A soak as a picture: what was answered, and what a replica used, with a band behind it while something went wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_WIDTH, _LEFT, _RIGHT, _PANEL, _GAP, _TOP = 900, 70, 20, 110, 34, 40
_BAND: Final = "#fde9d9"
_FONT: Final = 'font-family="system-ui, sans-serif" font-size="11"'


@dataclass(frozen=True)
class Curve:
    """One line: pairs of a second and a value."""

    name: str
    color: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Lines that share a scale."""

    title: str
    curves: Sequence[Curve]


def draw(title: str, panels: Sequence[Panel], bands: Sequence[tuple[float, float]], seconds: float) -> str:
    """Draw panels above each other, on one axis of time."""
    height = _TOP + len(panels) * (_PANEL + _GAP)
    width = _WIDTH - _LEFT - _RIGHT

    def x(at: float) -> float:
        return _LEFT + width * min(max(at, 0.0), seconds) / seconds

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" {_FONT}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="18" font-size="13" font-weight="600" fill="#222">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        top = _TOP + number * (_PANEL + _GAP)
        parts += [
            f'<rect x="{x(begin):.1f}" y="{top}" width="{max(x(end) - x(begin), 1):.1f}" height="{_PANEL}"'
            f' fill="{_BAND}"/>'
            for begin, end in bands
        ]
        parts += _panel(panel, top, x)
    for share in (0, 0.25, 0.5, 0.75, 1):
        at = seconds * share
        parts.append(
            f'<text x="{x(at):.1f}" y="{height - 8}" text-anchor="middle" fill="#555">{at / 60:.1f} min</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, top: int, x: Callable[[float], float]) -> list[str]:
    most = max((value for curve in panel.curves for _, value in curve.points), default=1.0) or 1.0
    parts = [f'<text x="{_LEFT}" y="{top - 6}" fill="#222">{escape(panel.title)}</text>']
    for step in (0, 0.5, 1):
        y = top + _PANEL * (1 - step)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d8d8d8"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{most * step:,.0f}</text>')
    for number, curve in enumerate(panel.curves):
        path = " ".join(f"{x(at):.1f},{top + _PANEL * (1 - value / most):.1f}" for at, value in curve.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{curve.color}" stroke-width="1.2"/>')
        if len(panel.curves) > 1:
            left = _WIDTH - _RIGHT - 110 * (len(panel.curves) - number)
            parts.append(f'<text x="{left}" y="{top - 6}" fill="{curve.color}">{escape(curve.name)}</text>')
    return parts
