"""Charts as inline SVG: they scale with the page and take their colours from its style."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["bars", "histogram"]

Point = tuple[str, float]
"""A label, as plain text, and a number from 0."""

_WIDTH = 440
_ROW = 26
_LABEL = 120
_VALUE = 74


def bars(points: Sequence[Point]) -> str:
    """A bar to the right for each number."""
    largest = max((value for _, value in points), default=0.0)
    room = _WIDTH - _LABEL - _VALUE
    height = max(_ROW * len(points), _ROW)
    parts = [_open(height, points, "GB")]
    for place, (label, value) in enumerate(points):
        top = place * _ROW
        width = max(2.0, room * value / largest) if largest and value else 0.0
        parts.append(
            f'<text x="{_LABEL - 10}" y="{top + 17}" text-anchor="end">{escape(_short(label, 17))}</text>'
            f'<rect class="track" x="{_LABEL}" y="{top + 5}" width="{room}" height="16" rx="4"/>'
            f'<rect class="bar" x="{_LABEL}" y="{top + 5}" width="{width:.1f}" height="16" rx="4"/>'
            f'<text class="value" x="{_WIDTH}" y="{top + 17}" text-anchor="end">{value:,.0f}</text>'
        )
    return "".join(parts) + "</svg>"


def histogram(points: Sequence[Point]) -> str:
    """A column for each number."""
    largest = max((value for _, value in points), default=0.0)
    height, floor, top = 210, 160, 22
    step = _WIDTH / max(len(points), 1)
    parts = [_open(height, points, "images"), f'<path class="axis" d="M0 {floor + 0.5}H{_WIDTH}"/>']
    for place, (label, value) in enumerate(points):
        middle = (place + 0.5) * step
        tall = max(2.0, (floor - top) * value / largest) if largest and value else 0.0
        width = min(step * 0.68, 64.0)
        parts.append(
            f'<rect class="bar" x="{middle - width / 2:.1f}" y="{floor - tall:.1f}" '
            f'width="{width:.1f}" height="{tall:.1f}" rx="4"/>'
            f'<text class="value" x="{middle:.1f}" y="{floor - tall - 7:.1f}" '
            f'text-anchor="middle">{value:,.0f}</text>'
        )
        for line, words in enumerate(_two_lines(label)):
            spot = f'x="{middle:.1f}" y="{floor + 19 + 15 * line}"'
            parts.append(f'<text {spot} text-anchor="middle">{escape(words)}</text>')
    return "".join(parts) + "</svg>"


def _open(height: int, points: Sequence[Point], unit: str) -> str:
    spoken = escape("; ".join(f"{label}: {value:,.0f} {unit}" for label, value in points))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{spoken}" '
        'xmlns="http://www.w3.org/2000/svg">'
    )


def _short(label: str, most: int) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def _two_lines(label: str) -> tuple[str, ...]:
    words = label.split(" ")
    if len(words) < 3:
        return (label,)
    half = (len(words) + 1) // 2
    return " ".join(words[:half]), " ".join(words[half:])
