"""What callers may pass: every check that happens before anything is sent.

Each function returns the value that was checked, or raises TypeError or ValueError naming the argument and
what is allowed.
"""

from __future__ import annotations

import math
import re
from ipaddress import ip_address

from yarl import URL

__all__ = [
    "check_base_url",
    "check_callable",
    "check_header",
    "check_image_id",
    "check_image_key",
    "check_range",
    "check_seconds",
    "check_text",
]

_SLUG = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_HEADER = re.compile(r"[\x20-\x7e]+")


def check_image_id(image_id: object, name: str = "image_id") -> int:
    """An image's numeric id."""
    if type(image_id) is not int:
        raise TypeError(f"{name} must be an int, not {image_id!r}")
    if not 1 <= image_id < 2**63:
        raise ValueError(f"{name} must be from 1 to 2**63 - 1, not {image_id}")
    return image_id


def check_image_key(image_id: object) -> int | str:
    """An image's numeric id, or a public image's slug; nothing that could name another URL."""
    if not isinstance(image_id, str):
        return check_image_id(image_id)
    if not _SLUG.fullmatch(image_id) or len(image_id) > 255:
        raise ValueError(
            "image_id must be an int, or a slug of letters, digits, '-', '.' and '_' such as "
            f"'ubuntu-24-04-x64', not {image_id!r}"
        )
    return image_id


def check_text(value: object, name: str, *, empty: bool = False) -> str:
    """A string that can be sent as UTF-8."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {value!r}")
    if not value and not empty:
        raise ValueError(f"{name} must not be empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds a lone surrogate, which is no character: {value!r}") from None
    return value


def check_range(value: object, name: str, least: int, most: int | None = None) -> int:
    """An int within bounds."""
    if type(value) is not int:
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < least or (most is not None and value > most):
        allowed = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be {allowed}, not {value}")
    return value


def check_seconds(value: object, name: str, *, zero: bool = False) -> float:
    """A finite number of seconds, above zero unless `zero`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not 0 <= value < math.inf or (value == 0 and not zero):
        raise ValueError(f"{name} must be {'at least 0' if zero else 'more than 0'} seconds, not {value}")
    return value


def check_callable(value: object, name: str, *, optional: bool = False) -> None:
    """A function, or None where it is `optional`."""
    if not callable(value) and not (optional and value is None):
        raise TypeError(f"{name} must be callable{' or None' if optional else ''}, not {value!r}")


def check_header(value: object, name: str) -> str:
    """A header's value: visible ASCII and spaces."""
    text = check_text(value, name)
    if not _HEADER.fullmatch(text):
        raise ValueError(f"{name} must be visible ASCII characters and spaces, not {text!r}")
    return text


def check_base_url(value: object) -> URL:
    """The API's origin, and a path in front of `/v2` if there is one; https, but for this machine."""
    try:
        url = URL(check_text(value, "base_url"))
        url.port  # noqa: B018  (yarl reads the port only now)
    except ValueError as error:
        raise ValueError(f"base_url is not a URL: {error}") from None
    if url.user is not None or url.password is not None:
        raise ValueError("base_url must not hold a user name or password")
    if url.scheme not in {"https", "http"} or not url.host:
        raise ValueError(f"base_url must be an absolute https URL, not {value!r}")
    if url.query_string or url.fragment:
        raise ValueError(f"base_url must not hold a query or a fragment: {value!r}")
    if url.scheme == "http" and not _is_loopback(url.host):
        raise ValueError(f"base_url must be https, or the token could be read on the way: {value!r}")
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
