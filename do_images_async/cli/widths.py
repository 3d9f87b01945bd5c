"""The columns that fit a width, and their widths."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["kept_columns", "shrunk"]


def kept_columns(smallest: Sequence[int], ranks: Sequence[int], gap: int, room: int) -> list[int]:
    """Return the indexes of the columns that fit at their smallest widths.

    Args:
        smallest: the smallest width of each column.
        ranks: the highest rank is dropped first; 0 is never dropped.
        gap: characters between two columns.
        room: characters for all of them.
    """
    kept = list(range(len(smallest)))
    while _total([smallest[place] for place in kept], gap) > room:
        last = max(kept, key=ranks.__getitem__)
        if not ranks[last]:
            break
        kept.remove(last)
    return kept


def shrunk(widths: Sequence[int], smallest: Sequence[int], gap: int, room: int) -> list[int]:
    """Return widths with which a line fits, if possible: the widest column shrinks first.

    Args:
        widths: the preferred width of each column.
        smallest, gap, room: as in `kept_columns`.
    """
    fitted = list(widths)
    while _total(fitted, gap) > room:
        able = [place for place, width in enumerate(fitted) if width > smallest[place]]
        if not able:
            break
        fitted[max(able, key=fitted.__getitem__)] -= 1
    return fitted


def _total(widths: Sequence[int], gap: int) -> int:
    return sum(widths) + gap * (len(widths) - 1)
