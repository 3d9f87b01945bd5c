"""What happens to each attempt, told to the log and to a hook: for metrics, traces and whoever reads logs.

Neither ever sees the token or a body. The log is `do_images_async`: an attempt is one record, at WARNING when
another attempt follows and at DEBUG otherwise; what the hook is told is in the record's `extra` too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeAlias

import attrs
from yarl import URL

from do_images_async.errors import APIError, DOImagesError
from do_images_async.models import RateLimit

__all__ = [
    "AttemptEnded",
    "Event",
    "EventHook",
    "PermitGranted",
    "log",
    "logger",
    "outcome_of",
    "route_of",
    "tell",
]

logger: Final = logging.getLogger("do_images_async")
logger.addHandler(logging.NullHandler())

_ACTION_POSITION: Final = 5
_CANCELLED: Final = "cancelled"
_WORTH_SAYING: Final = 0.01  # seconds


@attrs.frozen(kw_only=True)
class PermitGranted:
    """An attempt has its permit and is sent now; told inside the attempt, so in its trace span as well.

    Attributes:
        method: the request's HTTP method.
        route: its path with names in the place of ids, such as `/v2/images/{image_id}`: a metric's label.
        attempt: its number within the call, from 1.
        quota_wait: seconds that it waited for the quota.
    """

    method: str
    route: str
    attempt: int
    quota_wait: float


@attrs.frozen(kw_only=True)
class AttemptEnded:
    """An attempt is over, one way or the other.

    Attributes:
        method, route, attempt, quota_wait: as in `PermitGranted`.
        duration: seconds from the permit to the end; 0.0 without a permit.
        permitted: whether it had its permit. Without one, nothing was sent.
        outcome: a word for it out of a small set: the status, "cancelled", or the exception's class.
        status: the HTTP status; None when no answer came.
        error: what it failed with; None when it succeeded or was cancelled.
        retry_in: seconds until the next attempt; None when this was the last one.
        request_id: what the provider's support asks for.
        rate_limit: the hour's quota as the answer reported it.
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


def outcome_of(status: int | None, error: BaseException | None) -> str:
    """The word for how an attempt ended; see `AttemptEnded`."""
    if error is None or isinstance(error, APIError):
        return str(status)
    return type(error).__name__ if isinstance(error, Exception) else _CANCELLED


def log(level: int, url: URL, event: AttemptEnded) -> None:
    """Write the record of an attempt."""
    fields = attrs.asdict(event, recurse=False) | {"url": str(url)}
    fields["error"] = None if event.error is None else type(event.error).__name__
    logger.log(level, "%s %s: %s", event.method, url, _sentence(event), extra=fields)


def tell(hook: EventHook, event: Event) -> None:
    """Call the hook; whoever counts requests must not be able to break them."""
    try:
        hook(event)
    except Exception:
        logger.exception("on_event raised; the call goes on")


def _sentence(event: AttemptEnded) -> str:
    waited = (
        f" (after {event.quota_wait:.2f} s of waiting for quota)" if event.quota_wait >= _WORTH_SAYING else ""
    )
    if event.outcome == _CANCELLED:
        return f"attempt {event.attempt} was cancelled after {event.duration:.3f} s{waited}"
    if event.outcome == str(event.status) and event.error is None:
        return f"attempt {event.attempt} was answered {event.status} in {event.duration:.3f} s{waited}"
    following = "" if event.retry_in is None else f", next in {event.retry_in:.2f} s"
    return f"attempt {event.attempt} failed{following}{waited}: {event.error or event.outcome}"


def route_of(path: str) -> str:
    """A path of the API with names in the place of its ids."""
    parts = path.split("/")
    if len(parts) > 3:
        parts[3] = "{image_id}"
    if len(parts) > _ACTION_POSITION and parts[4] == "actions":
        parts[_ACTION_POSITION] = "{action_id}"
    return "/".join(parts)
