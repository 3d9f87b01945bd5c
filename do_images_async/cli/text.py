"""Text for a terminal: numbers with their noun, and escaped text of servers and users."""

from __future__ import annotations

import os
import re
import unicodedata
from datetime import UTC, datetime

__all__ = ["counted", "in_gigabytes", "masked", "printable", "printable_lines", "timestamp"]

# Controls and escapes, invisible and direction-changing characters, lone surrogates, line separators.
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

_OLDER_TOKEN = re.compile(r"\b[0-9a-f]{64}\b")
_LIKE_A_TOKEN = re.compile(r"[\w-]{40,}", re.ASCII)
_VARIABLES = ("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN")


def counted(number: int, noun: str) -> str:
    """Return the number and the noun, in the plural unless the number is one."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def in_gigabytes(size: float) -> str:
    """Return a size in GB with two decimals, or fewer if they are zeros: "1,234,567.5 GB"."""
    return f"{size:,.2f}".rstrip("0").rstrip(".") + " GB"


def masked(text: str, *, guess: bool = False) -> str:
    """Return the text without the tokens in it.

    Args:
        text: a message.
        guess: whether to mask also every long word of letters and digits, as other issuers' tokens are.
    """
    from do_images_async._arguments import TOKEN  # it imports yarl, for which a help need not wait

    for variable in _VARIABLES:
        if len(value := os.environ.get(variable, "").strip()) > 8:
            text = text.replace(value, "(a token)")
    text = _OLDER_TOKEN.sub("(a token)", TOKEN.sub(r"\1…", text))
    return _LIKE_A_TOKEN.sub(_guessed, text) if guess else text


def _guessed(found: re.Match[str]) -> str:
    word = found[0]
    is_mixed = any(char.isdigit() for char in word) and any(char.isalpha() for char in word)
    return f"{word[:4]}… (perhaps a token)" if is_mixed else word


def printable(text: str) -> str:
    """Return the text with every character escaped that a terminal might interpret or not show."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) if unicodedata.category(char) in _HARMFUL else char for char in text)


def printable_lines(text: str) -> str:
    """Return the text with each line escaped as by `printable`; the line feeds stay."""
    return "\n".join(map(printable, text.split("\n")))


def timestamp(moment: datetime) -> str:
    """Return a datetime as JSON and CSV have it, in UTC; at the ends of the calendar its zone stays."""
    try:
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return moment.isoformat()


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
