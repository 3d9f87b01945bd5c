"""HTML for notebooks: a table whose every cell is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["html_table"]


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; None is an empty cell, and everything else its escaped `str`."""

    def row(tag: str, cells: Sequence[object]) -> str:
        texts = ("" if cell is None else escape(str(cell)) for cell in cells)
        return f"<tr>{''.join(f'<{tag}>{text}</{tag}>' for text in texts)}</tr>"

    lines = [f"<table><caption>{escape(caption)}</caption>", row("th", head)]
    lines += [row("td", each) for each in rows]
    return "\n".join([*lines, "</table>"])
