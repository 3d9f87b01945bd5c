"""The live displays on the terminal, which give way to lines of output."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Display", "clear_displays", "registered"]


class Display(Protocol):
    """A live display, which can be cleared and is painted again by itself."""

    def clear(self) -> None: ...


_displays: list[Display] = []


@contextmanager
def registered(display: Display) -> Generator[None]:
    """Clear the display before each line of output until the block ends."""
    _displays.append(display)
    try:
        yield
    finally:
        _displays.remove(display)


def clear_displays() -> None:
    """Clear the displays, so that a line that is written now begins at the margin."""
    for display in _displays:
        display.clear()
