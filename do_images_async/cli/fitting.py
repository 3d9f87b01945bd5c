"""Tables of a report that fit the terminal: numbers are dropped first, the names of rows never."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
from rich.cells import cell_len
from rich.table import Column, Table
from rich.text import Text

from do_images_async.cli.text import printable
from do_images_async.cli.widths import kept_columns, shrunk

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
    smallest = [min(width, field.min_width or width) for field, width in zip(fields, widths, strict=True)]
    room -= _GAP  # rich puts a gap behind the last column, too
    kept = kept_columns(smallest, [field.rank for field in fields], _GAP, room)
    preferred = [_preferred(fields[place], widths[place]) for place in kept]
    fitted = shrunk(preferred, [smallest[place] for place in kept], _GAP, room)
    table = Table(
        *(_column(fields[place], width) for place, width in zip(kept, fitted, strict=True)),
        box=None,
        padding=(0, _GAP, 0, 0),
        header_style="bold",
    )
    for row in cells:
        table.add_row(*(_cell(fields[place], row[place]) for place in kept))
    return table


def _preferred(field: Field, width: int) -> int:
    padded = max(width, field.pad)
    return min(padded, field.max_width or padded)


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
