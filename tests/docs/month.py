"""The picture of the retention page: a month of snapshots, and which of them a policy keeps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from do_images_async._whole import whole_listing
from do_images_async.models import Image, ImageStatus, ImageType
from do_images_async.retention import Decision, Policy, one_group, plan

__all__ = ["draw_month"]

_NOW: Final = datetime(2026, 10, 31, 12, tzinfo=UTC)
_POLICY: Final = Policy(keep_last=3, keep_daily=7, keep_weekly=4)
_COLOURS: Final = {"last": "#e65100", "daily": "#1e88e5", "weekly": "#43a047"}
_LEFT, _TOP, _WIDTH, _HEIGHT = 52, 30, 84, 46


def draw_month() -> str:
    """Return the picture as SVG on one line for each day; what is kept is what `plan` says."""
    return "\n".join(_lines(sorted(_decisions(), key=lambda each: each.image.id)))


def _decisions() -> tuple[Decision, ...]:
    """Decide on a snapshot for each day of October 2026, made at three in the night."""
    images = [
        Image(
            id=day,
            name=f"web-2026-10-{day:02}",
            type=ImageType.SNAPSHOT,
            status=ImageStatus.AVAILABLE,
            public=False,
            created_at=datetime(2026, 10, day, 3, tzinfo=UTC),
        )
        for day in range(1, 32)
    ]
    return plan(whole_listing(images), _POLICY, group_by=one_group, now=_NOW).decisions


def _lines(decisions: list[Decision]) -> Iterator[str]:
    kept = sum(each.keep for each in decisions)
    yield (
        '<svg viewBox="0 0 660 300" role="img" aria-labelledby="month-title" '
        'style="width:100%;max-width:660px;font:13px sans-serif" fill="currentColor">'
    )
    yield (
        f'<title id="month-title">October 2026 with a snapshot each night: of 31, {kept} are kept by '
        "keep_last 3, keep_daily 7 and keep_weekly 4.</title>"
    )
    names = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    yield "".join(
        f'<text x="{_LEFT + place * _WIDTH + 6}" y="20" opacity=".7">{name}</text>'
        for place, name in enumerate(names)
    )
    weeks = sorted({_date(each).isocalendar().week for each in decisions})
    yield "".join(
        f'<text x="4" y="{_TOP + row * _HEIGHT + 26}" opacity=".7">W{week}</text>'
        for row, week in enumerate(weeks)
    )
    for each in decisions:
        yield _day(each, weeks.index(_date(each).isocalendar().week))
    yield "".join(
        f'<circle cx="{_LEFT + 12 + place * 130}" cy="282" r="6" fill="{colour}"/>'
        f'<text x="{_LEFT + 24 + place * 130}" y="286">{rule}</text>'
        for place, (rule, colour) in enumerate(
            zip(("keep_last 3", "keep_daily 7", "keep_weekly 4"), _COLOURS.values(), strict=True)
        )
    )
    yield "</svg>"


def _day(decision: Decision, row: int) -> str:
    date = _date(decision)
    x, y = _LEFT + date.weekday() * _WIDTH, _TOP + row * _HEIGHT
    rules = [name for name in _COLOURS if any(reason.startswith(name) for reason in decision.reasons)]
    dots = "".join(
        f'<circle cx="{x + 36 + place * 16}" cy="{y + 21}" r="6" fill="{_COLOURS[rule]}"/>'
        for place, rule in enumerate(rules)
    )
    words = ", ".join(decision.reasons) or "removed"
    opacity = "1" if decision.keep else ".35"
    return (
        f'<g opacity="{opacity}"><title>{date:%Y-%m-%d}: {words}</title>'
        f'<rect x="{x}" y="{y}" width="{_WIDTH - 4}" height="{_HEIGHT - 4}" rx="5" fill="none" '
        f'stroke="currentColor" stroke-width="{2 if decision.keep else 1}"/>'
        f'<text x="{x + 8}" y="{y + 26}">{date.day}</text>{dots}</g>'
    )


def _date(decision: Decision) -> datetime:
    assert decision.image.created_at is not None
    return decision.image.created_at
