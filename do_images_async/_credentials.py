"""The token, wrapped so that it can be sent and not shown."""

from __future__ import annotations

import hashlib
import re
from typing import NoReturn

__all__ = ["Token", "read_token"]

_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")


def read_token(value: object) -> Token | TypeError | ValueError:
    """A token made of what a caller passed, or what is wrong with it.

    The error is returned, to be raised where the value is no longer at hand: not even a traceback that prints
    local variables shows it then.
    """
    if not isinstance(value, str):
        return TypeError(f"token must be a str, not {type(value).__name__}")
    if not _VISIBLE_ASCII.fullmatch(value):
        return ValueError("token must be visible ASCII characters without spaces, at least one")
    return Token(value)


class Token:
    """A bearer token that has been checked: its repr is masked and it can't be pickled by accident."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    @property
    def authorization(self) -> str:
        """The value of the Authorization header."""
        return f"Bearer {self.__value}"

    def redact(self, text: str) -> str:
        """The text without the token, should a server have echoed it."""
        return text.replace(self.__value, "***")

    def digest(self) -> str:
        """What may stand for the token where tokens are told apart: a prefix of its SHA-256."""
        return hashlib.sha256(self.__value.encode()).hexdigest()[:32]

    def __repr__(self) -> str:
        return "Token(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Token is not pickled: it would lie readable wherever the pickle goes")
