"""Text for a terminal: numbers with their noun, and what a server sent, made harmless."""

from __future__ import annotations

import unicodedata

__all__ = ["counted", "printable"]

# Controls and escapes, invisible and direction-changing characters, lone surrogates, line separators.
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def counted(number: int, noun: str) -> str:
    """The number and the noun, in the plural where it is not one."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def printable(text: str) -> str:
    """The text with every character escaped that a terminal might act on, or not show."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) if unicodedata.category(char) in _HARMFUL else char for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
