"""The requests in the trailing minute over time, as an SVG: one panel for each limiter, in one scale."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from tests.support.simulation import HOUR, MINUTE, Outcome

__all__ = ["draw"]

WIDTH, PANEL, GAP = 860, 110, 34
LEFT, RIGHT, TOP = 44, 30, 40
STEP = 10.0  # seconds


def draw(outcomes: Mapping[str, Outcome], *, seconds: float) -> str:
    """The picture of the first so many seconds."""
    most = max(MINUTE.capacity, *(max(_counts(o.arrivals, seconds), default=0) for o in outcomes.values()))
    height = TOP + len(outcomes) * (PANEL + GAP)
    panels = "\n".join(
        _panel(name, outcome, TOP + index * (PANEL + GAP), seconds, most)
        for index, (name, outcome) in enumerate(outcomes.items())
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" \
font-family="sans-serif" font-size="11">
<rect width="100%" height="100%" fill="white"/>
<text x="{LEFT}" y="16" font-size="13">Requests that the server counts in the trailing minute; \
dashed: the {MINUTE.capacity} that it allows</text>
{panels}
</svg>
"""


def _counts(arrivals: Sequence[float], seconds: float) -> list[int]:
    """The most in any trailing minute that ends in each step."""
    counts: list[int] = []
    for step in range(int(seconds / STEP)):
        first, last = (bisect_left(arrivals, edge * STEP) for edge in (step, step + 1))
        moments = [*arrivals[first:last], step * STEP]
        counts.append(max(_in_the_minute_before(arrivals, moment) for moment in moments))
    return counts


def _in_the_minute_before(arrivals: Sequence[float], moment: float) -> int:
    return bisect_right(arrivals, moment) - bisect_right(arrivals, moment - MINUTE.seconds)


def _panel(name: str, outcome: Outcome, top: int, seconds: float, most: int) -> str:
    width, bottom = WIDTH - LEFT - RIGHT, top + PANEL

    def across(moment: float) -> float:
        return LEFT + width * moment / seconds

    def up(count: int) -> float:
        return bottom - (PANEL - 16) * count / most

    points = " ".join(
        f"{across(step * STEP):.1f},{up(count):.1f}"
        for step, count in enumerate(_counts(outcome.arrivals, seconds))
    )
    limit = up(MINUTE.capacity)
    return f"""<g>
<text x="{LEFT}" y="{top + 4}" font-weight="bold">{escape(name)}</text>
<text x="{WIDTH - RIGHT}" y="{top + 4}" text-anchor="end">{outcome.refused:,} refused in the whole run</text>
<polyline points="{points}" fill="none" stroke="#1f5fbf" stroke-width="1.2"/>
<path d="M{LEFT} {limit:.1f}H{WIDTH - RIGHT}" stroke="#c0392b" stroke-dasharray="5 4"/>
<text x="{LEFT - 6}" y="{limit + 4:.1f}" text-anchor="end" fill="#c0392b">{MINUTE.capacity}</text>
<path d="M{LEFT} {bottom}H{WIDTH - RIGHT}" stroke="#555"/>
{"".join(_mark(across(moment), bottom, moment) for moment in _moments(seconds))}
</g>"""


def _mark(x: float, y: int, moment: float) -> str:
    return (
        f'<path d="M{x:.1f} {y}v4" stroke="#555"/>'
        f'<text x="{x:.1f}" y="{y + 15}" text-anchor="middle">{moment / 60:.0f} min</text>'
    )


def _moments(seconds: float) -> Iterable[float]:
    quarter = HOUR.seconds / 4
    return (number * quarter for number in range(int(seconds / quarter) + 1))
