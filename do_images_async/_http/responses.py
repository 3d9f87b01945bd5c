"""Turn an error response into an exception, and read the wait that it asks for; no I/O."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from do_images_async._http.converter import BOM
from do_images_async._http.headers import parse_retry_after, seconds_until_reset
from do_images_async._quota.policies import LONGEST_PAUSE
from do_images_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UnprocessableEntityError,
)
from do_images_async.models import RateLimit

if TYPE_CHECKING:
    from do_images_async._http.headers import Headers

__all__ = ["Answer", "beginning", "error_of", "pause_of"]

_MINUTE = 60.0

_LONGEST_MESSAGE = 1000
_SNIPPET = 200
_LONGEST_READ = 4000
"""Characters of a text that are searched for the token; fewer are shown."""
_CUT_OFF = 10

_CLASSES: dict[int, type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


@attrs.frozen(kw_only=True)
class Answer:
    """An error response, and as much of its body as could be read."""

    method: str
    url: str
    status: int
    headers: Headers
    body: bytes
    rate_limit: RateLimit | None


@attrs.frozen
class _ErrorBody:
    id: str | None = None
    message: str | None = None
    request_id: str | None = None


def error_of(answer: Answer, redact: Callable[[str], str]) -> APIError:
    """Return the exception for an error response; `redact` removes the token from a text."""

    def clean(text: str | None, longest: int = _SNIPPET) -> str | None:
        return _redacted_start(text, redact)[:longest] if text else None

    body = _error_body(answer.body.removeprefix(BOM))
    error = _class_of(answer.status)(
        status=answer.status,
        id=clean(body.id),
        message=clean(body.message, _LONGEST_MESSAGE) or _snippet(answer, redact),
        request_id=clean(body.request_id or answer.headers.get("x-request-id")),
        method=answer.method,
        url=answer.url,
        rate_limit=answer.rate_limit,
    )
    if isinstance(error, RateLimitError):
        error.retry_after = pause_of(answer)
    return error


def pause_of(answer: Answer) -> float | None:
    """Return the seconds that the server asks to wait before the next request; None when it does not say.

    A 429 without `retry-after` may be the minute's or the hour's: the limiter waits a minute at most.
    """
    now = time.time()
    asked = parse_retry_after(answer.headers, now=now)
    if asked is not None:
        return min(asked, LONGEST_PAUSE)
    if answer.status != 429 or _hour_has_left(answer.rate_limit):
        return None
    reset = seconds_until_reset(answer.headers, now=now)
    return None if reset is None else min(reset, _MINUTE)


def _hour_has_left(rate_limit: RateLimit | None) -> bool:
    """Return whether a refusal is the minute's, since requests remain in the hour."""
    return rate_limit is not None and rate_limit.remaining > 0


def _redacted_start(text: str, redact: Callable[[str], str]) -> str:
    if len(text) <= _LONGEST_READ:
        return redact(text)
    # A part of the token at the cut may not have been recognized.
    return redact(text[:_LONGEST_READ])[:-_CUT_OFF]


def _class_of(status: int) -> type[APIError]:
    return ServerError if 500 <= status < 600 else _CLASSES.get(status, APIError)


def _error_body(body: bytes) -> _ErrorBody:
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _ErrorBody()
    return _ErrorBody(
        id=_text(fields.get("id")),
        message=_text(fields.get("message")) or _as_json(fields.get("message")),
        request_id=_text(fields.get("request_id")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _as_json(value: object) -> str | None:
    """Return an explanation that is an object or a list, such as one entry for each field, as JSON."""
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list) and value else None


def _snippet(answer: Answer, redact: Callable[[str], str]) -> str:
    if answer.status == 304:
        return "not modified, although the client sets no condition: look at the session, proxies and caches"
    if 300 <= answer.status < 400:
        return "a redirect, which is never followed: the token goes to one origin only"
    words = beginning(answer.body, redact)
    return f"not the API's own answer; it begins {words!r}" if words else "no explanation came with it"


def beginning(body: bytes, redact: Callable[[str], str]) -> str:
    """Return the first printable words of a body, without the token."""
    text = _redacted_start(body[: 2 * _LONGEST_READ].decode("utf-8", "replace"), redact)[: 4 * _SNIPPET]
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_SNIPPET]
