"""Checks of arguments: of the emulator, its faults and its quotas."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

import attrs

__all__ = [
    "duration",
    "flag",
    "function",
    "header_fields",
    "is_json",
    "is_text",
    "number",
    "one_of",
    "or_none",
    "text",
    "whole",
]

_Kinds = type[int] | tuple[type[int], type[float]]
Validator = Callable[[object, "attrs.Attribute[Any]", Any], None]


def is_text(value: object) -> bool:
    """Return whether the value is a string of characters: half of a surrogate pair is none."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_json(value: object) -> bool:
    """Return whether the value is JSON to every reader: Python's own takes NaN and lone surrogates."""
    try:
        return is_text(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return False


def number(least: float, most: float) -> Validator:
    """Return a validator for a number in these bounds."""
    return _numeric((int, float), f"a number from {least:,.10g} to {most:,.10g}", least, most)


def whole(least: float = -math.inf, most: float = math.inf) -> Validator:
    """Return a validator for a whole number in these bounds."""
    words = "a whole number"
    if least > -math.inf:
        words += f" from {least:,.10g}"
    if most < math.inf:
        words += f" to {most:,.10g}"
    return _numeric(int, words, least, most)


def _numeric(kinds: _Kinds, words: str, least: float, most: float) -> Validator:
    def check(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise TypeError(f"{attribute.name} must be {words}")
        if not least <= value <= most:
            raise ValueError(f"{attribute.name} must be {words}")

    return check


def or_none(validator: Validator) -> Validator:
    """Return a validator that also allows None."""

    def check(owner: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is not None:
            validator(owner, attribute, value)

    return check


def one_of(literal: Any) -> Validator:
    """Return a validator for one of the literal's values."""

    def check(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value not in get_args(literal):
            raise ValueError(f"{attribute.name} must be one of {', '.join(get_args(literal))}")

    return check


def header_fields(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Raise unless the value maps names of headers to their values."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{attribute.name} must map printable strings to printable strings")
    texts: list[Any] = [*value.keys(), *value.values()]  # pyright: ignore[reportUnknownArgumentType]
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise ValueError(f"{attribute.name} must map printable strings to printable strings")


def text(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Raise unless the value is a string."""
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} must be a string")
    if not is_text(value):
        raise ValueError(f"{attribute.name} must be a string without lone surrogates")


def function(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Raise unless the value can be called."""
    if not callable(value):
        raise TypeError(f"{attribute.name} must be a function, not {value!r}")


duration: Validator = number(0, 1e9)
"""A validator for the seconds of an import or an action: the time of its end is still a date."""


def flag(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Raise unless the value is true or false."""
    if not isinstance(value, bool):
        raise TypeError(f"{attribute.name} must be true or false")
