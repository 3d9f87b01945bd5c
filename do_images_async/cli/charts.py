"""Charts as inline SVG: bars scale with the page, and text keeps its size on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import attrs

__all__ = ["Bar", "bars"]

_ROW = 26
_VALUE = 22


@attrs.frozen
class Bar:
    """A bar of a chart.

    Attributes:
        label: its label, as plain text.
        value: its length, from 0.
        text: the value as text.
    """

    label: str
    value: float
    text: str


def bars(points: Sequence[Bar], *, label: int = 26, characters: int = 14) -> str:
    """Return a chart with a bar to the right for each point.

    All positions are in percent, so that the chart fills its card while the text is not scaled.

    Args:
        points: the bars, from the top.
        label: the labels' share of the width, in percent.
        characters: the longest label; a longer one is cut.
    """
    largest = max((point.value for point in points), default=0.0)
    room = 100 - label - _VALUE
    spoken = escape("; ".join(f"{point.label}: {point.text}" for point in points))
    parts = [f'<svg width="100%" height="{_ROW * max(len(points), 1)}" role="img" aria-label="{spoken}">']
    for place, point in enumerate(points):
        top = place * _ROW
        width = max(0.7, room * point.value / largest) if largest and point.value else 0.0
        parts.append(
            f'<text x="0" y="{top + 17}">{escape(_short(point.label, characters))}</text>'
            f'<rect class="track" x="{label}%" y="{top + 5}" width="{room}%" height="16" rx="4"/>'
            f'<rect class="bar" x="{label}%" y="{top + 5}" width="{width:.2f}%" height="16" rx="4"/>'
            f'<text class="value" x="100%" y="{top + 17}" text-anchor="end">{escape(point.text)}</text>'
        )
    return "".join(parts) + "</svg>"


def _short(label: str, most: int) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"
