"""What an answer that is no success means: an error, and perhaps a pause. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from do_images_async._http.converter import BOM
from do_images_async._http.headers import parse_retry_after, seconds_until_reset
from do_images_async._quota.gate import LONGEST_PAUSE
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

__all__ = ["Answer", "error_of", "pause_of"]

_LONGEST_MESSAGE = 1000
_SNIPPET = 200

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
    """A response that has arrived whole, and is no success."""

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
    """The exception for an answer that is no success; `redact` takes out what must not be shown."""
    body = _error_body(answer.body.removeprefix(BOM))
    request_id = body.request_id or answer.headers.get("x-request-id")
    error_class = ServerError if answer.status >= 500 else _CLASSES.get(answer.status, APIError)
    error = error_class(
        status=answer.status,
        id=body.id and redact(body.id),
        message=redact(body.message)[:_LONGEST_MESSAGE] if body.message else _snippet(answer, redact),
        request_id=request_id and redact(request_id),
        method=answer.method,
        url=answer.url,
        rate_limit=answer.rate_limit,
    )
    if isinstance(error, RateLimitError):
        error.retry_after = pause_of(answer)
    return error


def pause_of(answer: Answer) -> float | None:
    """Seconds that the server asks to wait before the next request; None when it says nothing usable."""
    now = time.time()
    asked = parse_retry_after(answer.headers, now=now)
    if asked is None and answer.status == 429:
        asked = seconds_until_reset(answer.headers, now=now)
    return None if asked is None else min(asked, LONGEST_PAUSE)


def _error_body(body: bytes) -> _ErrorBody:
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _ErrorBody()
    return _ErrorBody(
        id=_text(fields.get("id")),
        message=_text(fields.get("message")),
        request_id=_text(fields.get("request_id")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _snippet(answer: Answer, redact: Callable[[str], str]) -> str:
    if 300 <= answer.status < 400:
        return "a redirect, which is never followed: the token goes to one origin only"
    # Redacted before it is cut, so that no part of what must not be shown is left at the end.
    text = redact(answer.body.decode("utf-8", "replace"))[: 4 * _SNIPPET]
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not words:
        return "no explanation came with it"
    return f"not the API's own answer; it begins {words[:_SNIPPET]!r}"
