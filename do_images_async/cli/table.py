"""A table of rows: as wide as the terminal, or uncut in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from do_images_async.cli.columns import Column
from do_images_async.cli.terminal import text_console
from do_images_async.cli.text import printable
from do_images_async.cli.widths import kept_columns, shrunk

__all__ = ["table_text"]

_GAP = 2
_PIPED_GAP = 4
_NARROWEST = 2
_STYLES = {
    "available": "green",
    "completed": "green",
    "NEW": "yellow",
    "pending": "yellow",
    "in-progress": "yellow",
    "deleted": "red",
    "errored": "red",
    "retired": "magenta",
}


def table_text(
    columns: Sequence[Column[Any]],
    cells: Sequence[Sequence[str]],
    *,
    header: bool,
    droppable: bool,
    to_file: bool = False,
    advice: str = "; --columns chooses",
) -> str:
    """Return the table as text for stdout or a file.

    Args:
        columns: the columns.
        cells: the rows, each with a text for each column.
        header: whether the first line holds the titles.
        droppable: whether columns may be dropped if the terminal is too narrow.
        to_file: whether it is written to a file, which gets it uncut and without colours.
        advice: the end of the line on stderr that names those that were.
    """
    rows = [[printable(cell) for cell in row] for row in cells]
    if to_file or not sys.stdout.isatty():
        return _plain(columns, rows, header=header)
    console = text_console()
    widths = [
        max([cell_len(column.title) if header else 1, *(cell_len(row[place]) for row in rows)])
        for place, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    if droppable:
        smallest = [_smallest(column, width) for column, width in zip(columns, widths, strict=True)]
        shown = kept_columns(smallest, [column.rank for column in columns], _GAP, console.width)
    fitted = dict(zip(shown, _fitted([columns[i] for i in shown], [widths[i] for i in shown], console.width)))  # noqa: B905
    with console.capture() as capture:
        if header:
            console.print(
                _line(columns, [column.title for column in columns], fitted, "bold"), soft_wrap=True
            )
        for row in rows:
            console.print(_line(columns, row, fitted), soft_wrap=True)
    text = capture.get().encode(console.encoding, "backslashreplace").decode(console.encoding)
    hidden = [column.title for place, column in enumerate(columns) if place not in fitted]
    if hidden and sys.stderr.isatty():
        sys.stderr.write(f"(not shown at this width: {', '.join(hidden)}{advice})\n")
    return text


def _plain(columns: Sequence[Column[Any]], rows: Sequence[Sequence[str]], *, header: bool) -> str:
    table = [[column.title for column in columns]] * header + [list(row) for row in rows]
    widths = [max((cell_len(row[place]) for row in table), default=0) for place in range(len(columns))]
    lines = (
        (" " * _PIPED_GAP).join(set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True))
        for row in table
    )
    encoding = sys.stdout.encoding or "utf-8"
    text = "".join(line.rstrip() + "\n" for line in lines)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _fitted(columns: Sequence[Column[Any]], widths: Sequence[int], room: int) -> list[int]:
    """Return the columns' widths.

    A column with a smallest width becomes narrower than that only if the line does not fit otherwise.
    """
    for least in (None, _NARROWEST):
        smallest = [_smallest(column, width, least) for column, width in zip(columns, widths, strict=True)]
        widths = shrunk(widths, smallest, _GAP, room)
    return list(widths)


def _smallest(column: Column[Any], width: int, least: int | None = None) -> int:
    """Return the smallest width of a column; `least` is that of one which has a smallest width."""
    return min(width, least or column.min_width) if column.min_width else width


def _line(
    columns: Sequence[Column[Any]], cells: Sequence[str], widths: dict[int, int], style: str = ""
) -> Text:
    line = Text(style=style)
    last = max(widths, default=0)
    for place, width in widths.items():
        cell = _cut(cells[place], width)
        pad = " " * (width - cell_len(cell))
        text = pad + cell if columns[place].numeric else cell + (pad if place != last else "")
        line.append(text, _STYLES.get(cell, "") if columns[place].title == "Status" else "")
        if place != last:
            line.append(" " * _GAP)
    return line


def _cut(cell: str, width: int) -> str:
    return cell if cell_len(cell) <= width else set_cell_size(cell, width - 1).rstrip() + "…"
