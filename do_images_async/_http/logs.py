"""Log records and hook calls: the fields of an `AttemptEnded`, and a line made of them."""

from __future__ import annotations

import logging
from typing import Final

import attrs
from yarl import URL

from do_images_async.errors import APIError
from do_images_async.events import AttemptEnded, Event, EventHook

__all__ = ["call_hook", "log_attempt", "logger", "outcome_of", "route_of"]

logger: Final = logging.getLogger("do_images_async")
logger.addHandler(logging.NullHandler())

_ACTION_POSITION: Final = 5
_CANCELLED: Final = "cancelled"
_SHORTEST_SHOWN: Final = 0.01  # seconds


def outcome_of(status: int | None, error: BaseException | None) -> str:
    """Return the label for how an attempt ended; see `AttemptEnded.outcome`."""
    if error is None or isinstance(error, APIError):
        return str(status)
    return type(error).__name__ if isinstance(error, Exception) else _CANCELLED


def log_attempt(level: int, url: URL, event: AttemptEnded) -> None:
    """Write the log record of an attempt."""
    fields = attrs.asdict(event, recurse=False) | {"url": str(url)}
    # A formatter that writes JSON takes each of them as it is.
    fields["error"] = None if event.error is None else type(event.error).__name__
    fields["rate_limit"] = None if event.rate_limit is None else attrs.asdict(event.rate_limit)
    logger.log(level, "%s %s: %s", event.method, url, _sentence(event), extra=fields)


def call_hook(hook: EventHook, event: Event) -> None:
    """Call the user's hook; an exception in it is logged and does not end the call."""
    try:
        hook(event)
    except Exception:
        logger.exception("on_event raised; the call goes on")


def route_of(path: str) -> str:
    """Return a path under `/v2/images`, or one without an id, with placeholders for its ids."""
    parts = path.split("/")
    if len(parts) > 3:
        parts[3] = "{image_id}"
    if len(parts) > _ACTION_POSITION and parts[4] == "actions":
        parts[_ACTION_POSITION] = "{action_id}"
    return "/".join(parts)


def _sentence(event: AttemptEnded) -> str:
    waited = (
        f" (after {event.quota_wait:.2f} s of waiting for quota)"
        if event.quota_wait >= _SHORTEST_SHOWN
        else ""
    )
    if event.outcome == _CANCELLED:
        return f"attempt {event.attempt} was cancelled after {event.duration:.3f} s{waited}"
    if event.outcome == str(event.status) and event.error is None:
        return f"attempt {event.attempt} was answered {event.status} in {event.duration:.3f} s{waited}"
    following = "" if event.retry_in is None else f", next in {event.retry_in:.2f} s"
    return f"attempt {event.attempt} failed{following}{waited}: {event.error or event.outcome}"
