"""Tables of a report that fit the terminal: numbers are dropped first, the names of rows never."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
from rich.cells import cell_len
from rich.table import Column, Table
from rich.text import Text

from do_images_async.cli.text import printable

__all__ = ["Field", "fitted_table"]

_GAP = 2


@attrs.frozen
class Field:
    """A column of a report's table.

    Attributes:
        head: its heading.
        min_width: its smallest width, in characters; None for the width of its widest cell.
        max_width: its largest width.
        pad: its width if there is room, even if its cells are narrower.
        rank: the highest rank is dropped first if there is no room; 0 is never dropped.
        numeric: whether it is aligned to the right.
        style: the style of all its cells.
        styles: the styles of cells, by their text.
    """

    head: str
    min_width: int | None = None
    max_width: int | None = None
    pad: int = 0
    rank: int = 0
    numeric: bool = False
    style: str = ""
    styles: Mapping[str, str] = attrs.field(factory=dict[str, str])


def fitted_table(fields: Sequence[Field], rows: Sequence[Sequence[str]], room: int) -> Table:
    """Return a table of the columns that fit; a text is cut if its column is too narrow.

    Args:
        fields: the columns.
        rows: a text for each column; escape sequences from the server are escaped.
        room: the terminal's width.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [
        max(cell_len(field.head), *(cell_len(row[place]) for row in cells), 0)
        for place, field in enumerate(fields)
    ]
    kept = _kept(fields, widths, room)
    fitted = _fitted([fields[place] for place in kept], [widths[place] for place in kept], room)
    table = Table(
        *(_column(fields[place], width) for place, width in zip(kept, fitted, strict=True)),
        box=None,
        padding=(0, _GAP, 0, 0),
        header_style="bold",
    )
    for row in cells:
        table.add_row(*(_cell(fields[place], row[place]) for place in kept))
    return table


def _min_width(field: Field, width: int) -> int:
    return min(width, field.min_width or width)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * len(widths)


def _kept(fields: Sequence[Field], widths: Sequence[int], room: int) -> list[int]:
    """Return the indexes of the columns that fit at their smallest widths."""
    kept = list(range(len(fields)))
    while _total([_min_width(fields[place], widths[place]) for place in kept]) > room:
        last = max(kept, key=lambda place: fields[place].rank)
        if not fields[last].rank:
            break
        kept.remove(last)
    return kept


def _fitted(fields: Sequence[Field], widths: Sequence[int], room: int) -> list[int]:
    """Return widths with which a line fits, if possible: the widest column shrinks first."""
    fitted = [
        min(max(width, field.pad), field.max_width or max(width, field.pad))
        for field, width in zip(fields, widths, strict=True)
    ]
    min_widths = [_min_width(field, width) for field, width in zip(fields, widths, strict=True)]
    while _total(fitted) > room:
        able = [place for place, width in enumerate(fitted) if width > min_widths[place]]
        if not able:
            break
        fitted[max(able, key=fitted.__getitem__)] -= 1
    return fitted


def _column(field: Field, width: int) -> Column:
    return Column(
        Text(field.head, no_wrap=True, overflow="ellipsis"),
        width=width,
        no_wrap=True,
        overflow="ellipsis",
        justify="right" if field.numeric else "left",
        style=field.style,
    )


def _cell(field: Field, text: str) -> Text:
    return Text(text, style=field.styles.get(text, ""), no_wrap=True, overflow="ellipsis")
