"""Read the quota from response headers; pure functions that ignore invalid values."""

from __future__ import annotations

import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeAlias

from do_images_async._quota.protocols import Report
from do_images_async.models import RateLimit

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

    Headers: TypeAlias = CIMultiDictProxy[str]

__all__ = ["parse_rate_limit", "parse_retry_after", "report_of", "seconds_until_reset"]

_MOST_DIGITS = 18
_QUOTA = ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset")


def parse_rate_limit(headers: Headers) -> RateLimit | None:
    """Return the quota in the `ratelimit-*` headers; None unless each is there once and is valid."""
    try:
        # This runs for every response, and the headers are almost always complete.
        (limit,), (remaining,), (reset,) = map(headers.getall, _QUOTA)
    except (KeyError, ValueError):
        return None
    digits = limit + remaining + reset
    if not (digits.isdigit() and digits.isascii() and limit and remaining and reset):
        return None
    if len(limit) > _MOST_DIGITS or len(remaining) > _MOST_DIGITS or len(reset) > _MOST_DIGITS:
        return None
    read = RateLimit(limit=int(limit), remaining=int(remaining), reset=int(reset))
    return read if read.remaining <= read.limit else None


def parse_retry_after(headers: Headers, *, now: float) -> float | None:
    """Return the seconds that `retry-after` asks to wait, as a number or an HTTP date; None when unusable.

    A date in the past is 0: less than a second, rounded down.

    Args:
        headers: the response's headers. A date is read against the response's own `Date`, so that a wrong
            clock on either side does no harm.
        now: Unix time in seconds, for a response without `Date`.
    """
    value = _single(headers, "retry-after")
    if value is None:
        return None
    if _is_number(value):
        return float(value)
    when = _http_date(value)
    if when is None:
        return None
    return max(0.0, when - _server_time(headers, now))


def report_of(status: int, headers: Headers, rate_limit: RateLimit | None) -> Report:
    """Return the response's report to the limiter; times are read only where they matter."""
    refused = status == 429
    remaining = counted = None
    if rate_limit is not None:
        remaining = rate_limit.remaining
        counted = rate_limit.limit - remaining
        if remaining and not refused:
            return Report(remaining=remaining, counted=counted)
    now = time.time()
    return Report(
        remaining=remaining,
        counted=counted,
        refused=refused,
        retry_after=parse_retry_after(headers, now=now) if refused else None,
        reset_in=seconds_until_reset(headers, now=now),
    )


def seconds_until_reset(headers: Headers, *, now: float) -> float | None:
    """Return the seconds until `ratelimit-reset`, by the response's `Date`; None when missing or past."""
    reset = _integer(headers, "ratelimit-reset")
    if reset is None:
        return None
    seconds = reset - _server_time(headers, now)
    return seconds if seconds > 0 else None


def _server_time(headers: Headers, now: float) -> float:
    date = _http_date(headers.get("date", ""))
    return now if date is None else date


def _http_date(value: str) -> float | None:
    try:
        when = parsedate_to_datetime(value)
        # HTTP's dates are UTC; asctime's form and "-0000" have no zone that Python would know.
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _integer(headers: Headers, name: str) -> int | None:
    value = _single(headers, name)
    return int(value) if value is not None and _is_number(value) else None


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS


def _single(headers: Headers, name: str) -> str | None:
    values = headers.getall(name, ())
    return values[0] if len(values) == 1 else None
