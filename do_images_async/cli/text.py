"""Text from a server, made harmless for a terminal."""

from __future__ import annotations

import unicodedata

__all__ = ["printable"]

# Controls and escapes, invisible and direction-changing characters, lone surrogates, line separators.
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str) -> str:
    """The text with every character escaped that a terminal might act on, or not show."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) if unicodedata.category(char) in _HARMFUL else char for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
