"""The width for which a command writes, and the console that has it."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Final

from rich.console import Console
from rich.text import Text

__all__ = ["progress_console", "text_console", "width", "wrapped"]

_USUAL: Final = 80
_LEAST: Final = 20
_MOST: Final = 100_000
_HEIGHT: Final = 25  # rich would read LINES, too, and the size of the terminal


def width() -> int:
    """Return the width in characters: that of COLUMNS, or of the terminal, or 80; 20 if it is less."""
    return _named() or _bounded(_measured() or _USUAL)


def text_console(*, to_file: bool = False) -> Console:
    """Return a console in memory with the colours and width of stdout; for a file without colours."""
    return Console(
        file=_LikeStdout(),
        force_terminal=False if to_file else None,
        highlight=False,
        markup=False,
        emoji=False,
        width=width(),
        height=_HEIGHT,
    )


def progress_console() -> Console:
    """Return a console for the progress on stderr; without COLUMNS it follows the terminal's size."""
    if "COLUMNS" not in os.environ:
        return Console(stderr=True)
    return Console(stderr=True, width=width(), height=_HEIGHT)


def wrapped(text: str) -> list[str]:
    """Return the lines of a text without line feeds, which fit stdout if it is a terminal."""
    if not sys.stdout.isatty():
        return [text]
    return [line.plain.rstrip() for line in Text(text).wrap(text_console(), width())]


class _LikeStdout(io.TextIOWrapper):
    """A stream in memory for which rich chooses colours and characters as it does for stdout.

    At the end of a capture, rich writes an empty text to its stream, which fails on a full disk if stdout is
    unbuffered. The command itself writes what was captured, and says if it can't.
    """

    def __init__(self) -> None:
        # A test's stdout may have no encoding.
        super().__init__(io.BytesIO(), encoding=sys.stdout.encoding or "utf-8")

    def isatty(self) -> bool:
        return sys.stdout.isatty()


def _named() -> int | None:
    """Return the width that COLUMNS names; None if it names no positive number."""
    text = os.environ.get("COLUMNS", "").strip()
    is_number = text.isascii() and text.isdigit() and len(text) < 10
    return _bounded(int(text)) if is_number and int(text) else None


def _bounded(columns: int) -> int:
    return max(_LEAST, min(columns, _MOST))


def _measured() -> int:
    """Return the width of the terminal that is one of the standard streams; 0 if none is, or knows it."""
    for stream in (sys.stdout, sys.stderr, sys.stdin):
        with suppress(AttributeError, ValueError, OSError):
            if columns := os.get_terminal_size(stream.fileno()).columns:
                return columns
    return 0
