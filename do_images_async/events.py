"""Events of each attempt, for `on_event=` and the log: for metrics, traces and operators.

Neither ever holds the token or a body. The log is `do_images_async`: one record for each attempt, at WARNING
when a retry follows and at DEBUG otherwise; its `extra` has the fields of `AttemptEnded`, as values
that JSON has, and the `url`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs

from do_images_async.errors import DOImagesError
from do_images_async.models import RateLimit

__all__ = ["AttemptEnded", "Event", "EventHook", "PermitGranted"]


@attrs.frozen(kw_only=True)
class PermitGranted:
    """The start of an attempt: it has its permit and is sent now, within the attempt's trace span.

    Attributes:
        method: the request's HTTP method.
        route: its path with placeholders for ids, such as `/v2/images/{image_id}`; a label for metrics.
        attempt: its number within the call, from 1.
        quota_wait: seconds that it waited for the quota.
    """

    method: str
    route: str
    attempt: int
    quota_wait: float


@attrs.frozen(kw_only=True)
class AttemptEnded:
    """The end of an attempt, with success or without.

    Attributes:
        method, route, attempt, quota_wait: as in `PermitGranted`.
        duration: seconds from the permit to the end; 0.0 without a permit.
        permitted: whether it had its permit; without one, nothing was sent.
        outcome: a label for metrics, from a small set: the status, "cancelled", or the exception's class.
        status: the HTTP status; None without a response.
        error: the error; None when the attempt succeeded or was cancelled.
        retry_in: seconds until the next attempt, at the earliest; None when this was the last one.
        request_id: the id to quote to the provider's support.
        rate_limit: the hour's quota as the response reported it.
        available: tokens that are free now, one number for each bucket of the limiter.
    """

    method: str
    route: str
    attempt: int
    quota_wait: float
    duration: float
    permitted: bool
    outcome: str
    status: int | None
    error: DOImagesError | None
    retry_in: float | None
    request_id: str | None
    rate_limit: RateLimit | None
    available: tuple[int, ...]


Event: TypeAlias = PermitGranted | AttemptEnded
EventHook: TypeAlias = Callable[[Event], None]
