"""The checks of queries and bodies, as strict as the API's description."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from aiohttp import web

from do_images_async.testing.answers import Problem, usual_problem
from do_images_async.testing.arguments import is_json

__all__ = [
    "Body",
    "any_json_object",
    "boolean_of",
    "choice_of",
    "email_of",
    "integer_of",
    "invalid",
    "json_object",
    "not_found",
    "number_of",
    "tags_of",
    "text_of",
    "uuid_of",
]

Body = dict[str, Any]
Query = Mapping[str, str]

_TAG = re.compile(r"[\w:-]{1,255}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_DIGITS = 4_000  # fewer than Python refuses to read


def not_found() -> Problem:
    """Return the error for something that does not exist or belongs to another account."""
    return usual_problem(404)


def invalid(message: str) -> Problem:
    """Return the error for a well-formed request with a value that is not allowed."""
    return Problem(422, "unprocessable_entity", message)


async def json_object(request: web.Request) -> Body:
    """Return the body, which must be a JSON object and, if it has a content type, declared as JSON."""
    if "Content-Type" in request.headers and request.content_type != "application/json":
        raise usual_problem(415)
    body = await any_json_object(request)
    if not is_json(body):
        raise _not_json()
    return body


async def any_json_object(request: web.Request) -> Body:
    """Return the body, which must be a JSON object, of any content type; it may hold lone surrogates."""
    try:
        body: Any = json.loads(await request.read(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _not_json() from None
    if not isinstance(body, dict):
        raise Problem(400, "bad_request", "The body must be a JSON object.")
    return body  # pyright: ignore[reportUnknownVariableType]


def _not_json() -> Problem:
    return Problem(400, "bad_request", "The body is not JSON.")


def _refuse_constant(constant: str) -> NoReturn:
    """Raise ValueError: Python reads NaN and Infinity, which are not JSON."""
    raise ValueError(f"{constant} is not JSON")


def text_of(body: Body, name: str, *, required: bool = False) -> str:
    """Return a string of the body; without one, an empty string, unless it is required."""
    value = body.get(name, "")
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string")
    if required and not value:
        raise invalid(f"{name} is required")
    return value


def email_of(body: Body, name: str) -> str:
    """Return an e-mail address of the body; without one, an empty string."""
    email = text_of(body, name)
    if email and not _EMAIL.fullmatch(email):
        raise invalid(f"{name} must be an e-mail address")
    return email


def uuid_of(body: Body, name: str, *, required: bool = False) -> str:
    """Return a UUID of the body; without one, an empty string, unless it is required."""
    uuid = text_of(body, name, required=required)
    if uuid and not _UUID.fullmatch(uuid):
        raise invalid(f"{name} must be a UUID")
    return uuid


def tags_of(body: Body) -> list[str]:
    """Return the tags of the body, each once; an empty list if they are missing or null.

    Tags that differ in case are the same tag.
    """
    tags = _texts_of(body, "tags")
    for at, tag in enumerate(tags):
        if not _TAG.fullmatch(tag):
            raise invalid(f"tags[{at}] must be 1 to 255 letters, numbers, colons, dashes and underscores")
    once: dict[str, str] = {}
    for tag in tags:
        once.setdefault(tag.casefold(), tag)
    return list(once.values())


def _texts_of(body: Body, name: str) -> list[str]:
    value: Any = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):  # pyright: ignore[reportUnknownVariableType]
        raise invalid(f"{name} must be an array of strings")
    return value  # pyright: ignore[reportUnknownVariableType]


def number_of(body: Body, name: str) -> int:
    """Return a whole number of the body, which is required."""
    if name not in body:
        raise invalid(f"{name} is required")
    value = body[name]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(f"{name} must be an integer")
    return value


def integer_of(query: Query, name: str, default: int, least: int, most: int | None = None) -> int:
    """Return a whole number of the query, within bounds."""
    text = query.get(name)
    if text is None:
        return default
    bounds = f"from {least}" if most is None else f"from {least} to {most}"
    if not (text.isascii() and text.isdigit()):
        raise invalid(f"{name} must be an integer {bounds}")
    if len(text) > _DIGITS:
        raise invalid(f"{name} must be an integer {bounds}, of at most {_DIGITS:,} digits")
    number = int(text)
    if number < least or (most is not None and number > most):
        raise invalid(f"{name} must be an integer {bounds}")
    return number


def choice_of(query: Query, name: str, allowed: Sequence[str]) -> str | None:
    """Return a parameter of the query that is one of a few words, or None without one."""
    text = query.get(name)
    if text is not None and text not in allowed:
        raise invalid(f"{name} must be one of {', '.join(allowed)}")
    return text


def boolean_of(query: Query, name: str) -> bool | None:
    """Return a boolean of the query, or None."""
    text = choice_of(query, name, ("true", "false"))
    return None if text is None else text == "true"
