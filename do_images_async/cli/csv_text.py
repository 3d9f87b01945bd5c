"""Rows as CSV that every reader reads back, and that no spreadsheet executes as formulas."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import cast

from do_images_async.cli.text import timestamp

__all__ = ["csv_text"]

_FORMULA = frozenset("=+-@\N{MINUS SIGN}")
_QUOTED = frozenset('",\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029')
_SKIPPED = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})
"""Categories of characters that a spreadsheet may skip at the beginning of a cell."""


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return the rows as CSV, each with a line feed at its end.

    A text that a spreadsheet might execute as a formula gets an apostrophe in front. So does one that begins
    with an apostrophe: whoever takes one away from each cell that begins with it has the texts back. The
    standard library's writer quotes a carriage return from Python 3.13 on only.

    Args:
        rows: the cells: strings, numbers, booleans, datetimes, None for nothing, and sequences of strings.
    """
    return "".join(_line([_cell(value) for value in row]) for row in rows)


def _line(cells: Sequence[str]) -> str:
    # Most readers ignore an empty line, so it would be no row.
    return ",".join(cells) + "\n" if len(cells) != 1 or cells[0] else '""\n'


def _cell(value: object) -> str:
    text = _text(value)
    return '"' + text.replace('"', '""') + '"' if _QUOTED & set(text) else text


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, str):
        return _harmless(str(value))
    if isinstance(value, tuple | list):
        return _harmless(",".join(cast("Sequence[str]", value)))
    return str(value)


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith("'") or _may_be_formula(text) else text


def _may_be_formula(text: str) -> bool:
    if text.startswith(("\t", "\r", "\n")):
        return True
    first = next((char for char in text if unicodedata.category(char) not in _SKIPPED), "")
    return bool(first) and unicodedata.normalize("NFKC", first)[0] in _FORMULA
