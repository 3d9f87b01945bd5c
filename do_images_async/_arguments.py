"""Checks of what callers pass, all of them made before anything is sent.

Each function returns the value that was checked, or raises TypeError or ValueError naming the argument and
what is allowed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from inspect import iscoroutinefunction
from ipaddress import IPv6Address, ip_address
from numbers import Number
from typing import Final, SupportsIndex, TypeGuard, cast
from urllib.parse import urlsplit

from yarl import URL

__all__ = [
    "TOKEN",
    "check_bool",
    "check_callable",
    "check_choice",
    "check_header",
    "check_hook",
    "check_image_id",
    "check_image_key",
    "check_import_url",
    "check_range",
    "check_seconds",
    "check_text",
    "check_texts",
    "check_unread",
    "ids_of",
    "is_insecure",
    "is_read",
    "plain",
    "read_base_url",
    "shown",
]

TOKEN: Final = re.compile(r"\b(do[a-z]_v1_)\w*", re.ASCII)
"""The beginning of a token of the provider's: personal (dop), of OAuth (doo), to refresh one (dor)."""

_LONGEST_SHOWN: Final = 100
_LONGEST_LABEL: Final = 63
_MOST_DIGITS: Final = 19
_SLUG = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_HEADER = re.compile(r"[\x20-\x7e]+")
_HOST = re.compile(r"[\w.-]+|[0-9a-f:.]+(%[\w.-]+)?", re.IGNORECASE)
_USER_INFO = re.compile(r"^([^/?#]*//)?.*@", re.DOTALL)


def shown(value: object) -> str:
    """Return the repr of an argument for a message, cut to what fits a line, and without tokens."""
    try:
        text = repr(value[: _LONGEST_SHOWN + 1] if isinstance(value, str | bytes) else value)
    except Exception:  # noqa: BLE001  (the caller's own repr, or an int too long for Python to print)
        return f"a value of type {type(value).__name__}"
    text = TOKEN.sub("(a token)", text)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def plain(text: str) -> str:
    """Return the characters of a string: a subclass, such as an enum with values, may format others."""
    return str.__str__(text)


def check_image_id(image_id: object, name: str = "image_id") -> int:
    """Return an image's numeric id if it is one."""
    if type(image_id) is not int:
        raise TypeError(f"{name} must be an int, not {_shown_with_type(image_id)}")
    if not 1 <= image_id < 2**63:
        raise ValueError(f"{name} must be from 1 to 2**63 - 1, not {shown(image_id)}")
    return image_id


def check_image_key(image_id: object) -> int | str:
    """Return a numeric id or a public image's slug, if it is one and can't lead to another URL."""
    if type(image_id) is int:
        return check_image_id(image_id)
    if not isinstance(image_id, str):
        raise TypeError(
            f"image_id must be an int, or the slug of a public image, not {_shown_with_type(image_id)}"
        )
    image_id = plain(image_id)
    if len(image_id) <= _MOST_DIGITS and image_id.isascii() and image_id.isdigit():
        number = check_image_id(int(image_id))
        raise ValueError(
            f"image_id must be an int to name an image by its id: pass {number}, not {image_id!r}"
        )
    if not _SLUG.fullmatch(image_id) or len(image_id) > 255:
        raise ValueError(
            "image_id must be an int, or a slug of letters, digits, '-', '.' and '_' such as "
            f"'ubuntu-24-04-x64', not {shown(image_id)}"
        )
    _check_no_token(image_id, "image_id")
    return image_id


def check_text(value: object, name: str, *, empty: bool = False) -> str:
    """Return the value if it is a string that UTF-8 can encode."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {shown(value)}")
    value = plain(value)
    if not value and not empty:
        raise ValueError(f"{name} must not be empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds a lone surrogate, which is no character: {shown(value)}") from None
    _check_no_token(value, name)
    return value


def _check_no_token(value: str, name: str) -> None:
    """Raise ValueError for an API token in the wrong place, where logs and errors would show it."""
    if TOKEN.match(value):
        raise ValueError(f"{name} must not be an API token")


def check_range(value: object, name: str, lower: int, upper: int | None = None) -> int:
    """Return the value if it is an int within bounds, both included; None as `upper` sets no bound."""
    if type(value) is not int:
        raise TypeError(f"{name} must be an int, not {_shown_with_type(value)}")
    if value < lower or (upper is not None and value > upper):
        allowed = f"at least {lower}" if upper is None else f"from {lower} to {upper}"
        raise ValueError(f"{name} must be {allowed}, not {shown(value)}")
    return value


def check_bool(value: object, name: str) -> bool:
    """Return the value if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {shown(value)}")
    return value


def check_choice(value: object, name: str, allowed: Sequence[str]) -> str:
    """Return the value if it is one of several strings."""
    if value not in allowed:
        *others, last = map(repr, allowed)
        raise ValueError(f"{name} must be {', '.join(others)} or {last}, not {shown(value)}")
    return allowed[allowed.index(value)]


def _shown_with_type(value: object) -> str:
    """Return the repr of a value that is no int, with the type where it would look like one, as numpy's."""
    return f"{shown(value)} ({type(value).__name__})" if isinstance(value, SupportsIndex) else shown(value)


def check_seconds(value: object, name: str, *, zero: bool = False) -> float:
    """Return the value if it is a finite number of seconds, above zero unless `zero` allows 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {shown(value)}")
    # An int may be too large for a float, and is less than infinity all the same.
    if not 0 <= value <= sys.float_info.max or (value == 0 and not zero):
        allowed = "at least 0" if zero else "more than 0"
        raise ValueError(f"{name} must be {allowed} seconds and finite, not {shown(value)}")
    return value


def check_callable(value: object, name: str) -> None:
    """Raise TypeError unless the value is callable."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {value!r}")


def check_hook(value: object, name: str) -> None:
    """Raise TypeError unless the value is None, or a function that is called and not awaited."""
    if value is None:
        return
    if not callable(value):
        raise TypeError(f"{name} must be callable or None, not {value!r}")
    # An object whose `__call__` is a coroutine function would never be awaited either.
    if any(map(iscoroutinefunction, (value, getattr(value, "__call__", None)))):  # noqa: B004
        raise TypeError(f"{name} must not be a coroutine function: it is called, and never awaited")


def check_header(value: object, name: str) -> str:
    """Return the value if it can be a header's: visible ASCII and spaces."""
    text = check_text(value, name)
    if not _HEADER.fullmatch(text):
        raise ValueError(f"{name} must be visible ASCII characters and spaces, not {shown(text)}")
    return text


def read_base_url(
    value: object, name: str = "base_url", *, allow_insecure_http: bool = False
) -> URL | TypeError | ValueError:
    """Return the API's address, without `/v2` at its end, or the error that says what is wrong with it.

    The error names the argument or variable that `value` came from. The caller raises it after deleting the
    value, which can hold a password: a traceback shows local variables.
    """
    try:
        return _check_base_url(value, check_bool(allow_insecure_http, "allow_insecure_http"))
    except (TypeError, ValueError) as error:
        # A new one: the traceback of this one has the value among the local variables.
        message = str(error)
        named = message.startswith("base_url")
        return type(error)(name + message.removeprefix("base_url") if named else message)


def is_insecure(url: URL) -> bool:
    """Return whether somebody on the way to the URL can read what is sent there."""
    return url.scheme == "http" and not _is_loopback(url.host or "")


def _check_base_url(value: object, allow_insecure_http: bool) -> URL:
    text = check_text(value, "base_url")
    try:
        url = URL(text)
        host, port = url.host or "", url.port
    except ValueError:  # its message can hold a password
        raise ValueError(f"base_url must be an absolute https URL, not {_shown_url(text)}") from None
    if url.user is not None or url.password is not None:
        raise ValueError("base_url must not hold a user name or password")
    labels = (url.raw_host or "").removesuffix(".").split(".")
    if url.scheme not in {"https", "http"} or not _HOST.fullmatch(host) or not port:
        raise ValueError(f"base_url must be an absolute https URL, not {_shown_url(text)}")
    if not all(0 < len(label) <= _LONGEST_LABEL for label in labels):
        raise ValueError(
            f"base_url must have a host name with 1 to 63 characters between its dots, not {_shown_url(text)}"
        )
    if url.query_string or url.fragment:
        raise ValueError(f"base_url must not hold a query or a fragment: {_shown_url(text)}")
    if is_insecure(url) and not allow_insecure_http:
        raise ValueError(
            "base_url must be https, or the token could be read on the way (allow_insecure_http=True allows "
            f"it): {_shown_url(text)}"
        )
    path = url.raw_path.rstrip("/")
    return url.with_path(path.removesuffix("/v2") or "/", encoded=True) if path.endswith("/v2") else url


def check_import_url(value: object) -> str:
    """Return the value if it is a URL that the provider can fetch an image from."""
    text = check_text(value, "url")
    try:
        parts = urlsplit(text)
        complete = parts.scheme in ("http", "https", "ftp") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        complete = False
    if not complete or not text.isprintable() or " " in text:
        raise ValueError(f"url must be an absolute http, https or ftp URL, not {_shown_url(text)}")
    return text


def check_texts(value: object, name: str) -> list[str]:
    """Return the strings of a list, tuple, set or similar; refuse a mapping and a single string."""
    if not _is_list_or_alike(value):
        raise TypeError(f"{name} must be a list, tuple or set of strings, not {shown(value)}")
    each = f"each of {name}"
    return [check_text(text, each) for text in value]


def _is_list_or_alike(value: object) -> TypeGuard[Collection[object]]:
    return isinstance(value, Collection) and not isinstance(value, str | bytes | bytearray | Mapping)


def check_unread(value: object, name: str) -> None:
    """Raise ValueError for a generator that was read to its end or closed: it would pass for an empty one."""
    if is_read(value):
        raise ValueError(f"{name} was read to its end or closed: make a new one")


def is_read(value: object) -> bool:
    """Return whether this is a generator that was read to its end or closed."""
    return any(getattr(value, frame, "") is None for frame in ("ag_frame", "gi_frame"))


def ids_of(values: Container[int], name: str) -> Container[int]:
    """Return the ids of a collection as a set, or as they are if they can't be iterated over.

    `in` asks the index of a pandas Series, not its values, and uses up a generator. A set, the keys of a dict
    and a range are asked as they are: a copy would take memory.
    """
    if not isinstance(values, Container | Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} must be a collection of ids, not {shown(values)}")
    if isinstance(values, range) or not isinstance(values, Iterable):
        return values
    check_unread(values, name)
    held = cast("Iterable[int]", values)
    ids = held if isinstance(held, AbstractSet) else tuple(held)
    for each in ids:
        if not isinstance(each, Number):  # a string is never equal to an image's id
            raise TypeError(f"each of {name} must be an int, not {shown(each)}")
    return ids if isinstance(ids, AbstractSet) else frozenset(ids)


def _shown_url(text: str) -> str:
    """Return a URL for a message, without its user info and its query: they may be secret."""
    text = _USER_INFO.sub(r"\1***@", text)
    address, mark, _ = text.partition("?")
    return shown(address + mark)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    # Before 3.13, Python does not call an IPv4 address that is written as IPv6 a loopback's.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
