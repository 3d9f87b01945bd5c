"""The token: where it comes from, and a class that never shows it."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Awaitable, Callable
from html import unescape
from typing import Final, NoReturn, TypeAlias, cast
from urllib.parse import unquote

from do_images_async._arguments import plain

__all__ = [
    "TOKEN_VARIABLES",
    "Token",
    "TokenProvider",
    "base_url_from_environment",
    "choose_base_url",
    "read_token",
    "read_token_source",
    "read_variable",
]

DEFAULT_BASE_URL: Final = "https://api.digitalocean.com"
BASE_URL_VARIABLE: Final = "DIGITALOCEAN_API_URL"
TOKEN_VARIABLES: Final = ("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN")

TokenProvider: TypeAlias = Callable[[], str | Awaitable[str]]
"""A function that returns the token, or a coroutine function that does."""

_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")
_SHORTEST_PART: Final = 8
"""The shortest part of a token that is redacted on its own; a shorter one may be there by chance."""
_SHORTEST_IN_DATA: Final = 16
"""The shortest token that is redacted in data; a shorter one may be a part of the data by chance."""
_ASCII_ESCAPE = re.compile(rb"\\u00[2-7]")
_ESCAPABLE = re.compile(r"[\"\\/]")
_JSON_ESCAPE = re.compile(r"\\(?:u00([0-9a-fA-F]{2})|([\"\\/]))")


def read_variable(name: str) -> str:
    """Return an environment variable without white space around it; "" if it is not set.

    A secret that was made from a file often ends with a line feed.
    """
    return os.environ.get(name, "").strip()


def _token_variable() -> str | None:
    return next((name for name in TOKEN_VARIABLES if read_variable(name)), None)


def base_url_from_environment() -> str:
    """Return `DIGITALOCEAN_API_URL`, or the provider's own address where it is not set."""
    return read_variable(BASE_URL_VARIABLE) or DEFAULT_BASE_URL


def choose_base_url(given: str | None, *, from_environment: bool) -> tuple[str, str]:
    """Return the address given, or the default, and the name of the argument or variable that it came from.

    The environment's is taken only if the token comes from there too.
    """
    if given is None and from_environment:
        return base_url_from_environment(), BASE_URL_VARIABLE
    return DEFAULT_BASE_URL if given is None else given, "base_url"


def read_token_source(value: object) -> Token | TokenProvider | TypeError | ValueError:
    """Return the token, or the function that provides it; None reads the environment.

    The error is returned, as by `read_token`.
    """
    if value is None:
        variable = _token_variable()
        if variable is None:
            return ValueError(f"no token: pass one, or set {' or '.join(TOKEN_VARIABLES)}")
        return read_token(read_variable(variable), variable)
    return cast("TokenProvider", value) if callable(value) else read_token(value)


def read_token(value: object, name: str = "token") -> Token | TypeError | ValueError:
    """Return the token that a caller passed, or the error that says what is wrong with it.

    The error names the argument or variable that `value` came from. It is returned, so that the caller can
    delete its own reference to the value before it raises the error: then not even a traceback that prints
    local variables shows the token.
    """
    if not isinstance(value, str):
        return TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not _VISIBLE_ASCII.fullmatch(value):
        return ValueError(
            f"{name} must be visible ASCII characters without spaces and line ends, at least one"
        )
    return Token(plain(value))


class Token:
    """A bearer token that has been checked. Its repr is masked, and it can't be pickled."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    @property
    def authorization(self) -> str:
        """Return the value of the Authorization header."""
        return f"Bearer {self.__value}"

    def redact(self, text: str) -> str:
        """Return the text without the token and without longer parts of it.

        A token that is escaped for JSON, HTML or a URL is found as well, and so is one in base64. The time
        grows with the text: cut a long one first.
        """
        text = _without(text, self.__value)
        for decode in (_without_json_escapes, unquote, unescape):
            decoded = decode(text)
            if decoded != text and (clean := _without(decoded, self.__value)) != decoded:
                text = clean
        for encoded in _in_base64(self.__value):
            text = _without(text, encoded)
        return text

    def redact_json(self, data: bytes) -> bytes:
        """Return JSON without the token in it, also where its characters are escaped."""
        if len(self.__value) < _SHORTEST_IN_DATA:
            return data
        data = data.replace(self.__value.encode(), b"***")
        # The search for escapes takes far longer: only where a character of a token may be escaped.
        if not (_ASCII_ESCAPE.search(data) or (_ESCAPABLE.search(self.__value) and b"\\" in data)):
            return data
        either = (f"(?:{re.escape(c)}|\\\\{re.escape(c)}|(?i:\\\\u{ord(c):04x}))" for c in self.__value)
        return re.sub("".join(either).encode(), b"***", data)

    def digest(self) -> str:
        """Return a prefix of the token's SHA-256, to tell tokens apart without showing them."""
        return hashlib.sha256(self.__value.encode()).hexdigest()[:32]

    def __repr__(self) -> str:
        return "Token(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Token can't be pickled: a pickle would hold the token in plain text")


def _without(text: str, secret: str) -> str:
    return _without_parts(text.replace(secret, "***"), secret)


def _without_json_escapes(text: str) -> str:
    return _JSON_ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else match[2], text)


def _in_base64(secret: str) -> set[str]:
    """Return what base64 makes of a secret that begins at the first, second or third byte of three."""
    encoded: set[str] = set()
    for before in range(3):
        text = base64.b64encode(bytes(before) + secret.encode()).decode().rstrip("=")
        # The characters at both ends also depend on what stands before and after the secret.
        inner = text[(0, 2, 3)[before] : None if (before + len(secret)) % 3 == 0 else -1]
        if len(inner) >= _SHORTEST_PART:
            encoded |= {inner, inner.replace("+", "-").replace("/", "_")}
    return encoded


def _without_parts(text: str, secret: str) -> str:
    """Replace every part of the secret that has at least `_SHORTEST_PART` characters."""
    width = _SHORTEST_PART
    parts = {secret[start : start + width] for start in range(len(secret) - width + 1)}
    kept: list[str] = []
    end = 0
    for start in range(len(text) - width + 1):
        if text[start : start + width] not in parts:
            continue
        if start > end or not kept:
            kept += [text[end:start], "***"]
        end = start + width
    return "".join(kept) + text[end:]
